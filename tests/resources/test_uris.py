"""Paths and URIs as text: what is secret in them, what is a pattern, how an odd name is written."""

import glob

import pytest

from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.uris import (
    absolute_uri,
    local_name,
    local_path,
    masked,
    split_pattern,
    without_credentials,
)
from tests.resources.test_settings import SMALLEST, changed, load, refusal

SECRET = [
    "s3://AKIAX:se/c+ret@bucket/pool/*.jsonl",
    "https://user:secret@host/a.jsonl",
    "https://secret@host/a.jsonl",
    "ftp://user:secret@host:21/a.jsonl",
    "ftp://user:p@secret@host/a.jsonl",
    "smb://user:secret@host/share/*.jsonl",
    "sftp://user:secret@host/a.jsonl",
    "simplecache::s3://key:secret@bucket/a.jsonl",
    "zip://*.jsonl::https://user:secret@host/pool.zip",
    "https://host/a.jsonl?X-Amz-Signature=secret&x=1",
    "https://host/a.jsonl?x=1&X-Amz-Credential=secret",
    "https://host/a.jsonl?sv=2020&sig=secret",
    "https://host/a.jsonl?token=secret",
    "https://host/a.jsonl?access_token=secret#top",
    "https://host/a.jsonl?AWSAccessKeyId=secret",
    "abfs://container@account.dfs.core.windows.net/a.jsonl?sas=secret",
    "abfs://container@account.dfs.core.windows.net/a.jsonl?account_key=secret",
    "abfs://container:secret@account.dfs.core.windows.net/a.jsonl",
    "gs://bucket/a.jsonl?X-Goog-Signature=secret",
]
HARMLESS = [
    "s3://bucket/pool/*.jsonl",
    "sftp://user@host/a.jsonl",
    "abfs://container@account.dfs.core.windows.net/pool/*.jsonl",
    "http://host:8080/pool@v1/a.jsonl",
    "https://host/a.jsonl?download=1&tokenizer=words&author=me",
    "zip://*.jsonl::/data/pool@2:3.zip",
    "/data/a:b@c/x?token=1.jsonl",
]


@pytest.mark.parametrize("uri", SECRET)
def test_secrets_are_masked_wherever_a_uri_stands(uri):
    text = masked(f"cannot read '{uri}': {uri}: gone")
    assert "secret" not in text and "se/c+ret" not in text and text.endswith(": gone")
    assert "secret" not in str(CorpusError(f"{uri}: no such file"))


@pytest.mark.parametrize("uri", HARMLESS)
def test_what_is_no_secret_stays(uri):
    assert without_credentials(uri) == masked(uri) == uri


@pytest.mark.parametrize("uri", SECRET)
@pytest.mark.parametrize("path", [("raw", 0, "uri"), ("targets", 0, "uri"), ("targets", 0, "holdout")])
def test_a_configuration_with_credentials_is_refused_without_repeating_them(tmp_path, path, uri):
    message = refusal(tmp_path, changed(*path, to=uri))
    assert f"{path[0]}[0].{path[2]}: credentials do not belong in a URI" in message
    assert "environment" in message and "fsspec" in message
    assert "secret" not in message and "se/c+ret" not in message


def test_secrets_are_masked_where_they_stand_in_a_wrong_place(tmp_path):
    message = refusal(tmp_path, changed("raw", 0, "name", to="s3://key:secret@bucket"))
    assert "raw[0].name" in message and "secret" not in message
    assert "secret" not in refusal(
        tmp_path, 'raw: [{uri: "s3://key:secret@bucket", uri: "s3://key:secret@b"}'
    )


@pytest.mark.parametrize("name", ["[2024] run", "what?", "all*", "{a}", "plain"])
def test_only_what_is_written_in_the_uri_is_a_pattern(tmp_path, name):
    base = str(tmp_path / name)
    assert split_pattern(absolute_uri("pool/**/*.jsonl", base)) == (f"{base}/pool", "**/*.jsonl")
    assert split_pattern(absolute_uri("pool/0[12].jsonl", base)) == (f"{base}/pool", "0[12].jsonl")
    assert split_pattern(absolute_uri("../target.jsonl", base)) == (f"{tmp_path}/target.jsonl", None)
    assert split_pattern(absolute_uri("target.jsonl", base)) == (f"{base}/target.jsonl", None)
    assert absolute_uri("s3://b/*", base) == "s3://b/*"


def test_the_users_home_is_no_pattern_either(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "[me]"))
    assert split_pattern(absolute_uri("~/pool/*", "/x")) == (f"{tmp_path}/[me]/pool", "*")


def test_brackets_can_be_escaped_by_hand():
    assert split_pattern(glob.escape("/a/[b]/c?.jsonl")) == ("/a/[b]/c?.jsonl", None)


@pytest.mark.parametrize(
    "path", ["/a/b c.jsonl", "/a/é.jsonl", "/a/\udcff.jsonl", "/a/new\nline.jsonl", "/a/\x1b[2J%41.jsonl"]
)
def test_a_local_name_is_printable_and_leads_back(path):
    name = local_name(path)
    name.encode()
    assert name.isprintable() and local_path(name) == path
    assert name == path or name.startswith("file:///a/")


def test_where_the_configuration_is_known_to_its_readers(tmp_path):
    settings = load(tmp_path, SMALLEST)
    assert settings.raw[0].folder == settings.targets[0].folder == tmp_path
    assert "folder" not in settings.raw[0].model_dump()
