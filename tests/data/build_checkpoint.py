"""Make a checkpoint of the present format, to be read by every later gencg.

``PYTHONPATH=tests python tests/data/build_checkpoint.py FORMAT`` with the number of the format;
the file of an older format was made by the gencg that wrote it and is never made again.
"""

import json
import sys
from pathlib import Path

import torch
from tiny_fit import N_STEPS, numbers, tiny_fit

from gencg.deadline import TimeIsUp

HERE = Path(__file__).parent

if __name__ == "__main__":
    torch.set_num_threads(1)
    name = f"checkpoint_format{sys.argv[1]}"
    whole = numbers(tiny_fit())
    # In the middle of a training, where the state of the optimiser still matters
    try:
        tiny_fit(HERE / f"{name}.pt", stop=iter([False] * 3 + [True] * N_STEPS).__next__)
    except TimeIsUp:
        pass
    else:
        sys.exit("the training was not stopped")
    (HERE / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
