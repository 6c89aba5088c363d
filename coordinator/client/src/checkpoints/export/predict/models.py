# The built-in models, as functions of the tensors in `model.safetensors`.


def linear(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def mlp(state, x):
    activation = {"relu": torch.relu, "gelu": functional.gelu, "tanh": torch.tanh}[MODEL.get("activation", "relu")]
    x = x if x.dim() == 2 else x.flatten(1)
    for layer in range(len(MODEL["hidden"]) + 1):
        x = linear(state, f"layers.{layer}", x if layer == 0 else activation(x))
    return x


def batch_norm(state, name, x):
    of = lambda part: state[f"{name}.{part}"]  # noqa: E731
    return functional.batch_norm(x, of("running_mean"), of("running_var"), of("weight"), of("bias"), False, 0.1, 1e-5)


def resnet(state, x):
    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2)

    x = conv("stem.conv", x.unsqueeze(1) if x.dim() == 3 else x)
    x = torch.relu(batch_norm(state, "stem.norm", x))
    for stage in range(3):
        for block in range(MODEL["blocks"]):
            name, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
            y = torch.relu(batch_norm(state, f"{name}.norm1", conv(f"{name}.conv1", x, stride)))
            y = batch_norm(state, f"{name}.norm2", conv(f"{name}.conv2", y))
            if f"{name}.shortcut.conv.weight" in state:
                x = batch_norm(state, f"{name}.shortcut.norm", conv(f"{name}.shortcut.conv", x, stride))
            x = torch.relu(y + x)
    return linear(state, "head", x.mean((2, 3)))


def gpt(state, tokens):
    heads, width = MODEL["heads"], MODEL["width"]

    def norm(name, x):
        return functional.layer_norm(x, [width], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def attention(name, x):
        batch, time, _ = x.shape
        parts = linear(state, f"{name}.qkv", x).chunk(3, 2)
        q, k, v = (part.view(batch, time, heads, width // heads).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, None, 0.0, True)
        return linear(state, f"{name}.output", y.transpose(1, 2).flatten(2, 3))

    x = functional.embedding(tokens, state["tokens.weight"]) + state["positions.weight"][: tokens.shape[1]]
    for layer in range(MODEL["layers"]):
        name = f"blocks.{layer}"
        x = attention(f"{name}.attention", norm(f"{name}.norm1", x)) + x
        hidden = functional.gelu(linear(state, f"{name}.mlp.up", norm(f"{name}.norm2", x)))
        x = linear(state, f"{name}.mlp.down", hidden) + x
    return functional.linear(norm("norm", x).view(-1, width), state["tokens.weight"])


def precision():
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=NUMERICS.get("autocast", "off") == "bf16")


def network():
    """The function from inputs (and targets, if the module takes them) to the model's outputs."""
    put_back = lambda: None  # noqa: E731
    if MODEL["kind"] == "torchscript":
        module = torch.jit.load(exported("model.pt")).eval()
        held = [
            (part, name, tensor, tensor.detach().clone())
            for part in module.modules()
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            if not (tensor.requires_grad and name in part._parameters)
        ]

        def put_back():
            # As after each batch of the run's evaluation: `forward` may have changed or replaced a buffer.
            for part, name, tensor, value in held:
                setattr(part, name, tensor)
                tensor.copy_(value)
    else:
        # Clones are aligned to 64 bytes, like the run's tensors: MKL's bits depend on it.
        state = {name: tensor.clone() for name, tensor in load_file(exported("model.safetensors")).items()}
        forward = {"mlp": mlp, "resnet": resnet, "gpt": gpt}[MODEL["kind"]]
        module = lambda inputs: forward(state, inputs)  # noqa: E731

    def answer(*inputs):
        with precision():
            answered = module(*inputs)
        put_back()
        # As in the run, a list or tuple may contain the one tensor.
        return answered[0] if isinstance(answered, (list, tuple)) and len(answered) == 1 else answered

    return answer


