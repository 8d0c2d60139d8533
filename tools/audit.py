"""Look up the locked dependencies in a database of known vulnerabilities, by pip-audit.

    make audit                    the advisories of the Python package index
    make audit ARGS='-s osv'      those of OSV, by its own service

Needs the network: a database that cannot be asked is one line and exit 1, never a pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Maintained by the Python Packaging Authority; run apart, since it brings twenty packages along.
PIP_AUDIT = "pip-audit==2.10.1"
COMMAND = [str(ROOT / ".uv/bin/uv"), "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit"]

# Strict: without it what the index does not answer for counts as clean, all of it if need be.
OPTIONS = ["--requirement", "requirements.lock", "--disable-pip", "--strict"]
OPTIONS += ["--format", "json", "--progress-spinner", "off"]


def findings(report: Any) -> list[str]:
    """Return a line for each known vulnerability."""
    return [
        f"{package['name']} {package['version']}: {found['id']} "
        f"(mended in {', '.join(found['fix_versions']) or 'no release'})"
        for package in report["dependencies"]
        for found in package["vulns"]
    ]


def main(words: Sequence[str], command: Sequence[str] = COMMAND) -> int:
    """Run pip-audit on the lock; 0 if it was asked about everything and knows of nothing."""
    done = subprocess.run(
        [*command, *OPTIONS, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    try:
        report = json.loads(done.stdout)
        found = findings(report)
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        print(f"audit: the database could not be asked, so nothing is known ({lines[-1][:300]})")
        return 1
    for line in found:
        print(f"audit: {line}")
    count = len(report["dependencies"])
    print(f"audit: {count} locked packages, {len(found)} known vulnerabilities")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
