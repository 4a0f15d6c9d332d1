"""What may be a secret is not repeated."""

import pytest

from solvers.common.urls import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:secret@host/a.h5?signature=1", "https://host/a.h5"),
        ("https://me:secret@host/a.h5?signature=1: no such file", "https://host/a.h5: no such file"),
        ("'https://host/x?sig=1' and s3://key:secret@b/y.", "'https://host/x' and s3://b/y."),
        ("s3://key:with/slash+es@bucket/x", "s3://bucket/x"),
        ("https://u:with?mark@host/x", "https://host/x"),
        ("https://u:p::w@host", "https://host"),
        ("https://u:p@h1@host/x", "https://host/x"),
        ("https://token@host:80/x#frag", "https://host:80/x"),
        ("HTTPS://u:p@host/x", "HTTPS://host/x"),
        ("https:/u:p@host/x?sig=2", "https:/host/x"),  # as pathlib writes it
        ("zip://a.h5::https://u:p@host/x.zip?sig=3", "zip://a.h5::https://host/x.zip"),
        ("https://host/a.zip?sig=3::file:///cache", "https://host/a.zip::file:///cache"),
        ("simplecache::https://u:p@host/x?s=1", "simplecache::https://host/x"),
    ],
)
def test_secrets_go(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "data/a@b.h5",
        "/data/x?y#z.h5",
        "C:/data/a:c@b",
        "me@host: did you mean a#b?",
        "http://localhost:8000/a@v.h5",
        "hf://datasets/org/name@main/f.h5",
        "file:///data/with space/b.h5",
        "entity/project/name:v0",
        "",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert redact(text) == text
