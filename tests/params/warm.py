"""Runs in the target interpreter: imports torch and transformers once, then each script that it is told of in a fork of itself.

Reads JSON lines from standard input: `argv`, `env`, `cwd`, `output` (a file), `timeout`. Answers each with the wait status.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import traceback

import torch
import transformers


def main() -> None:
    torch.set_num_threads(1)
    _ = transformers.LlamaForCausalLM, transformers.Trainer  # what is imported lazily
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(one(asked))
        print(os.waitpid(child, 0)[1], flush=True)


def one(asked: dict) -> int:
    """Become the script."""
    signal.alarm(asked["timeout"])
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = asked["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main()
