"""The demo as other processes run it."""

import subprocess
import sys

PYTHON = (sys.executable, "-W", "error")

#: As its users start it.
DEMO = (*PYTHON, "-m", "openagents_json.demo")

#: What `python -m` does, in a process in which matplotlib is not installed: that is also the quick way.
_NO_PLOT = """
import runpy, sys
sys.modules["matplotlib"] = None
sys.argv[0] = "demo"
runpy.run_module("openagents_json.demo", run_name="__main__", alter_sys=True)
"""
NO_PLOT_DEMO = (*PYTHON, "-c", _NO_PLOT)

#: The same without rich.
_BARE = f"import sys; sys.modules['rich'] = None; {_NO_PLOT}"
BARE_DEMO = (*PYTHON, "-c", _BARE)

#: The same, but the process gets a signal as soon as it has heard of so many completed jobs. Until then bisect.py,
#: if the signal is deadly, is not done with.
_ENDING = f"""
import signal, sys, threading
from openagents_json.demo import _jobs, _progress

number, after = signal.Signals[sys.argv.pop(1)], int(sys.argv.pop(1))
tell, analyse = _progress.PlainProgress.tell, _jobs.analyse

def tell_or_end(self, event):
    tell(self, event)
    if event.type == "completed" and sum(self.done.values()) == after:
        signal.raise_signal(number)

def analyse_or_hang(source, file):
    if file == "bisect.py" and number is signal.SIGKILL:
        threading.Event().wait()
    return analyse(source, file)

_progress.PlainProgress.tell, _jobs.analyse = tell_or_end, analyse_or_hang
{_BARE}
"""

FEW = ("--packages", "bisect,json,tomllib")


def run_bare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo without matplotlib and rich to its end."""
    return subprocess.run([*BARE_DEMO, *arguments], capture_output=True, text=True, check=False)


def run_ending(signal_name: str, after: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo until that many jobs have completed; then it gets the signal."""
    command = [*PYTHON, "-c", _ENDING, signal_name, str(after), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
