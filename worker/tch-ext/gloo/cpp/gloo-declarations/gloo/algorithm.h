#pragma once

#include <gloo/context.h>
#include <gloo/transport/unbound_buffer.h>
