"""Small files in which each option of reading shows."""

from tests.drift.logged import make_lines, write_log


def write_files(folder):
    """Writes them into the folder."""
    sentences = ["the dog sees a bird .", "a cat hears the red dog .", "old bird sees the bad dog"]
    (folder / "text.txt").write_text("\n".join(sentences) + "\n")
    (folder / "masks.txt").write_text("the [MASK] dog\na bad [MASK] sees the dog\n")
    (folder / "masks.csv").write_text("text,other\nthe [MASK] dog,a bad [MASK]\n")
    (folder / "latin.txt").write_bytes("the dog [MASK] caf\xe9\n".encode("latin-1"))
    rows = ["text,other,label,second,x,y"]
    rows += ['"the dog, sees",a red bird,good,bad,1,0', "a cat,the [MASK] old dog,bad,good,0,1"]
    rows += ["old bird,a dog sees [MASK],good,good,1,1", "bad dog hears,a cat,bad,bad,0,0"]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "table.dat").write_text("\n".join(rows) + "\n")
    twins = "text,label\nred cat,bad\nold dog,Bad\na bird,good\n"
    (folder / "plan.yaml").write_text(
        "{budget: {steps: 9}, batch_size: 8, evaluation: {batch_size: 8}, model: {size: tiny}}"
    )
    (folder / "twins.csv").write_text(twins)
    (folder / "ragged.csv").write_text("text,label\nred cat,bad,x\nold dog,good\n")
    bars = "text|more;x|label\nred [MASK]|a|bad\nold [MASK]|b|good\n"
    (folder / "bars.csv").write_text(bars)
    (folder / "long.csv").write_text(f"text,label\n{' '.join(['the dog'] * 5)},bad\na cat,good\n")
    (folder / "more.csv").write_text("text,label\nred cat,bad\nold dog,good\n")
    (folder / "bare.csv").write_text("the dog sees,good\na cat hears,bad\n")
    (folder / "latin.csv").write_bytes("text,label\ncaf\xe9 dog,good\ncat,bad\n".encode("latin-1"))
    (folder / "tags.conll").write_text("the dog O\ndog cat B-X\n\na bird O\ncat red B-X\n")
    (folder / "tags.jsonl").write_text('{"tokens": ["the", "dog"], "tags": [0, 1]}\n')
    for seed, name in enumerate(("earlier", "later")):
        write_log(folder / name, make_lines(120, seed))
