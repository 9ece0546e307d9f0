from pathlib import Path

from lab.status import StatusFile, StatusReader, read_status


def test_a_reader_sees_each_line_once(tmp_path: Path) -> None:
    file, reader = StatusFile(tmp_path / "status.jsonl"), StatusReader(tmp_path / "status.jsonl")
    assert list(reader.new_lines()) == []

    file.write("starting", "etcd is starting", part="etcd", pid=7)
    assert [(line.state, line.part, line.pid) for line in reader.new_lines()] == [("starting", "etcd", 7)]

    file.write("failed", "etcd died", details="its\nlast words")
    assert [line.details for line in reader.new_lines()] == ["its\nlast words"]
    assert list(reader.new_lines()) == []
    assert len(read_status(tmp_path / "status.jsonl")) == 2


def test_half_a_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "status.jsonl"
    StatusFile(path).write("starting", "one")
    whole = path.read_text()
    path.write_text(whole + whole[:10])
    reader = StatusReader(path)
    assert len(list(reader.new_lines())) == 1

    path.write_text(whole + whole)

    assert [line.message for line in reader.new_lines()] == ["one"]
