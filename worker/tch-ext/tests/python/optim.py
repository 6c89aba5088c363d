# Runs PyTorch's fused optimizers on given numbers, and writes every parameter and state tensor, for tests/tch_ext/optim.rs. Argument: a
# folder with the files `numbers` and `kinds` (one optimizer call per line). Writes `result-<line>` and `sometimes-<line>` to it.
import sys, torch
torch.set_num_threads(1)
folder = sys.argv[1]
shapes = [(64, 64), (64,), (33, 7), (1,), (5, 3, 2)]
decays = [0.1, 0.0, 0.1, 0.0, 0.01]
rates = [0.1, 0.05, 0.2, 0.0, 0.013, 0.1, 0.1]
numbers = open(folder + "/numbers", "rb").read()


def is_used(parameter, step):
    return {1: step >= 2, 2: step % 2 == 0, 4: False}.get(parameter, True)


# Torch creates a parameter's state at its first use; in Lockstep it is zero until then.
def has_state(call, name):
    return "momentum=" in call if name == "momentum_buffer" else call.startswith("Adam")


def run(call, result, sometimes):
    data = torch.frombuffer(bytearray(numbers), dtype=torch.float32)
    at = 0

    def take(shape):
        nonlocal at
        start, at = at, at + torch.Size(shape).numel()
        return data[start:at].reshape(shape).clone()

    params = [torch.nn.Parameter(take(s)) for s in shapes]
    groups = [{"params": [p], "weight_decay": d} for p, d in zip(params, decays)]
    optimizer = eval("torch.optim." + call.replace("GROUPS", "groups"))
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for index, p in enumerate(params):
            grad = take(p.shape)
            p.grad = None if sometimes and not is_used(index, step) else grad
        optimizer.step()
    with open(result, "wb") as f:
        for p in params:
            f.write(p.detach().numpy().tobytes())
        for p in params:
            for name in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
                value = optimizer.state[p].get(name)
                if value is None and not optimizer.state[p] and has_state(call, name):
                    value = torch.zeros_like(p.detach())
                if value is not None:
                    f.write(value.numpy().tobytes())


for line, call in enumerate(open(folder + "/kinds").read().splitlines()):
    run(call, f"{folder}/result-{line}", False)
    run(call, f"{folder}/sometimes-{line}", True)
