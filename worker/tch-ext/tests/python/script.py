# Writes a TorchScript module, and trains its original in PyTorch, for tests/tch_ext/script.rs.
# Arguments: the file for the module, and the file for the bytes of the trained parameters and buffers.
import sys, torch
torch.manual_seed(0)
torch.set_num_threads(1)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh())
        self.head = torch.nn.Linear(8, 2)
        self.drop = torch.nn.Dropout(0.5)
    def forward(self, x):
        hidden = self.drop(self.body(x))
        return self.head(hidden), hidden
model = Net()
torch.jit.save(torch.jit.script(model), sys.argv[1])
# Ten steps of SGD in eager PyTorch, with dropout; the test compares the bits.
torch.manual_seed(3)
x = torch.arange(24, dtype=torch.float32).reshape(6, 4) / 10
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
for _ in range(10):
    optimizer.zero_grad()
    out, _ = model(x)
    (out * out).mean().backward()
    optimizer.step()
with open(sys.argv[2], "wb") as f:
    for _, t in list(model.named_parameters()) + list(model.named_buffers()):
        f.write(t.detach().contiguous().numpy().tobytes())
