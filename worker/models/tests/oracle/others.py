"""Writes files of other formats, which a job might name instead of a TorchScript module."""
import json
import sys
from pathlib import Path

import numpy
import torch
from torch import nn

out = Path(sys.argv[1])
model = nn.Linear(16, 3)
torch.save(model.state_dict(), out / "state.pt")
torch.save(model, out / "whole.pt")
torch.save(model.state_dict(), out / "old.pt", _use_new_zipfile_serialization=False)
torch.export.save(torch.export.export(model, (torch.zeros(2, 16),)), out / "exported.pt2")
(out / "exported.pt2").rename(out / "exported.pt")
header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
(out / "tensors.pt").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
with open(out / "array.pt", "wb") as file:
    numpy.save(file, numpy.zeros(3))
(out / "words.pt").write_text("no model")
