"""What the scripts in tests/bench share: running `adtally bench`, medians, a broker for the time of a script."""
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "build-rel/jobs/adtally/adtally"
PARTS = ("date", "kernel", "cpu", "cores", "version", "librdkafka", "rocksdb")
BROKER = ROOT / "tests/kafka/broker.py"


class Failed(Exception):
    """A benchmark that did not give a result; its own words."""


def run(adtally, *args):
    """One run: its result as a dictionary."""
    command = [str(adtally), "bench", *map(str, args), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def median(results):
    """Of each figure by itself; what is no number is the first run's."""
    first = results[0]
    figures = {k: statistics.median(r[k] for r in results if k in r)
               for k, v in first.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {**first, **figures}


def check(adtally):
    """The program, built to be measured."""
    path = Path(adtally)
    if not path.exists():
        sys.exit(f"{path} is not there: meson setup build-rel --buildtype=release -Db_lto=true && ninja -C build-rel")
    return path.resolve()


class Broker:
    """A broker of this script's own, or the one at an address; nothing without Kafka."""

    def __init__(self, address=None, wanted=True):
        self.address, self.own, self.dir = address, wanted and not address, None

    def __enter__(self):
        if self.own:
            self.dir = tempfile.TemporaryDirectory(prefix="adtally-bench-kafka-")
            done = subprocess.run([sys.executable, BROKER, "start", "--dir", f"{self.dir.name}/k", "--parent",
                                   str(os.getpid())], stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode != 0:
                self.dir.cleanup()
                sys.exit("no broker could be started; --broker HOST:PORT names one, --no-kafka does without")
            self.address = done.stdout.strip()
        return self

    def __exit__(self, *_):
        if self.own:
            subprocess.run([sys.executable, BROKER, "stop", "--dir", f"{self.dir.name}/k"], stdout=subprocess.DEVNULL,
                           check=False)
            self.dir.cleanup()

    def flags(self):
        return ["--log", f"kafka:{self.address}"] if self.address else []


def add_flags(parser):
    parser.add_argument("--adtally", default=DEFAULT, metavar="FILE", help="the program; its jobs are found beside it")
    parser.add_argument("--broker", metavar="HOST:PORT", help="default: one is started for the time of this script")
    parser.add_argument("--no-kafka", action="store_true", help="the file log alone")
    parser.add_argument("--quick", action="store_true", help="small and once: does it work? No figure of it counts")


def text(v):
    """Four digits, thousands apart."""
    if v is None:
        return ""
    if abs(v) >= 10000:
        return f"{float(f'{v:.4g}'):,.0f}"
    return f"{v:.4g}"


def place(result):
    return ", ".join(f"{k} {result[k]}" for k in PARTS if k in result) + (
        f", broker {result['broker']}" if "broker" in result else "")
