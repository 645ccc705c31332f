"""What a Dockerfile says."""

import re


def instructions_of(path):
    """Returns the instructions of every stage: name -> its arguments, in their order."""
    stages = []
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if name == "FROM":
            stages.append({})
        stages[-1].setdefault(name, []).append(rest.strip())
    return stages
