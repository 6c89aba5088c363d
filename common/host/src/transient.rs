//! Classification of failures as transient: failures of a disk, the network, a device or memory, in contrast to a wrong job.
//!
//! Many failures come through libraries that pass on only a text, so the text decides.

use std::error::Error;

use lockstep_common::chain;
use rustix::io::Errno;

/// System errors that a retry, perhaps on another node, may not meet.
const SYSTEM: [Errno; 21] = [
    Errno::IO,
    Errno::AGAIN,
    Errno::NOMEM,
    Errno::BUSY,
    Errno::NFILE,
    Errno::MFILE,
    Errno::NOSPC,
    Errno::ADDRINUSE,
    Errno::ADDRNOTAVAIL,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::CONNABORTED,
    Errno::CONNRESET,
    Errno::NOBUFS,
    Errno::NOTCONN,
    Errno::TIMEDOUT,
    Errno::CONNREFUSED,
    Errno::HOSTUNREACH,
    Errno::STALE,
    Errno::REMOTEIO,
    Errno::DQUOT,
];

/// Parts of messages of CUDA and of libtorch's allocators about devices and memory, in lower case.
const DEVICE: [&str; 6] = [
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "over nvlink or a hardware error",
    "device(s) is/are busy or unavailable",
    "out of memory",
    "can't allocate memory",
];

/// Whether `error` or one of its causes is transient.
pub fn is_of(error: &dyn Error) -> bool {
    is_in(&chain(error))
}

/// Whether the failure that `text` describes is transient.
pub fn is_in(text: &str) -> bool {
    // The standard library writes the number of a system error in this form.
    let numbers = text.split("(os error ").skip(1).filter_map(|rest| rest.split_once(')')?.0.parse::<i32>().ok());
    let text = text.to_lowercase();
    numbers.into_iter().any(|number| SYSTEM.iter().any(|errno| errno.raw_os_error() == number))
        || DEVICE.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read `x`")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn failures_of_disks_networks_devices_and_memory_may_pass() {
        for errno in [Errno::IO, Errno::STALE, Errno::MFILE, Errno::ADDRINUSE] {
            assert!(is_of(&Wrapped(errno.into())), "{errno:?}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::INVAL, Errno::ISDIR] {
            assert!(!is_of(&Wrapped(errno.into())), "{errno:?}");
        }
        // Messages of libtorch 2.13 and CUDA 13.
        for text in [
            "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported",
            "CUDA error: uncorrectable NVLink error detected during the execution",
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB",
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
            "cannot bind `127.0.0.1:1`: Address already in use (os error 98)",
        ] {
            assert!(is_in(text), "{text}");
        }
        for text in [
            "the loss of step 3 is NaN",
            "error 98",
            "(os error 2)",
            "(os error x)",
            "mat1 and mat2 cannot be multiplied",
        ] {
            assert!(!is_in(text), "{text}");
        }
    }
}
