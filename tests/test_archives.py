import io
import tarfile
import zipfile

import pytest

from robustbias.images.download import unpacked
from robustbias.utils import UserError


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, members):
    """A .tar.gz of (name, type, content or link target)."""
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.linkname = content
                archive.addfile(member)
    return path


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


FILES = {
    "repo-1/stimuli/cat/cat1.png": b"1",
    "repo-1/stimuli/dog/dog1.png": b"22",
    "repo-1/x": b"3",
}


def test_a_zip_is_unpacked_whole(tmp_path):
    assert unpacked(zipped(tmp_path / "a.zip", FILES), tmp_path / "out") == 3
    assert tree(tmp_path / "out") == FILES


def test_a_tar_is_unpacked_whole(tmp_path):
    members = [(name, tarfile.REGTYPE, content) for name, content in FILES.items()]
    archive = tarred(tmp_path / "a.tgz", [("repo-1", tarfile.DIRTYPE, ""), *members])
    assert unpacked(archive, tmp_path / "out") == 3
    assert tree(tmp_path / "out") == FILES


def test_only_the_wanted_folder_is_unpacked_and_its_name_taken_off(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    assert unpacked(archive, tmp_path / "out", folder="repo-1/stimuli") == 2
    assert tree(tmp_path / "out") == {"cat/cat1.png": b"1", "dog/dog1.png": b"22"}


def test_one_file_can_be_the_wanted_folder(tmp_path):
    unpacked(zipped(tmp_path / "a.zip", FILES), tmp_path / "out", folder="repo-1/x")
    assert tree(tmp_path / "out") == {"x": b"3"}


def test_a_folder_that_is_not_in_the_archive_is_an_error(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    with pytest.raises(UserError, match="has no file below 'repo-1/stim'"):
        unpacked(archive, tmp_path / "out", folder="repo-1/stim")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "a\\..\\evil"])
def test_a_path_outside_the_destination_is_refused_before_anything_is_written(tmp_path, name):
    content = {"first": b"ok", name: b"evil"}
    members = [(n, tarfile.REGTYPE, c) for n, c in content.items()]
    for archive in (zipped(tmp_path / "a.zip", content), tarred(tmp_path / "a.tgz", members)):
        with pytest.raises(UserError, match="a path outside its own folder; refused"):
            unpacked(archive, tmp_path / "inner" / "out")
    assert {p.name for p in tmp_path.rglob("*")} == {"a.zip", "a.tgz"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    archive = tarred(
        tmp_path / "a.tar.gz", [("first", tarfile.REGTYPE, b"ok"), ("b", kind, "first")]
    )
    with pytest.raises(UserError, match="'b', a link or a device; refused"):
        unpacked(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="'link', a link or a device; refused"):
        unpacked(tmp_path / "a.zip", tmp_path / "out")


def test_a_truncated_archive_is_an_error(tmp_path):
    archive = tarred(tmp_path / "a.tgz", [("a", tarfile.REGTYPE, bytes(range(256)) * 40)])
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.tgz is (damaged|neither)"):
        unpacked(archive, tmp_path / "out")
    whole = zipped(tmp_path / "a.zip", FILES)
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.zip is (damaged|neither)"):
        unpacked(whole, tmp_path / "out")


def test_a_corrupted_member_is_an_error(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"a": b"x" * 100})
    content = bytearray(archive.read_bytes())
    content[60] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip is damaged"):
        unpacked(archive, tmp_path / "out")


def test_a_web_page_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="neither a zip nor a tar archive"):
        unpacked(tmp_path / "a.zip", tmp_path / "out")


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "a.zip", {"a": b"x" * 5_000_000})
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("robustbias.images.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"unpacks to 5 MB but .* has only 1 MB free"):
        unpacked(archive, tmp_path / "out")


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_flipped_byte_anywhere_in_a_compressed_tar_is_damage(tmp_path, mode):
    path = tmp_path / f"a.tar.{mode}"
    with tarfile.open(path, f"w:{mode}") as archive:
        member = tarfile.TarInfo("a")
        member.size = 2000
        archive.addfile(member, io.BytesIO(bytes(range(200)) * 10))
    whole = path.read_bytes()
    for place in [*range(len(whole) // 2, len(whole), 7), *range(len(whole) - 8, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            unpacked(path, tmp_path / "out")
        except UserError:
            continue
        assert tree(tmp_path / "out") == {"a": bytes(range(200)) * 10}  # a byte that says nothing
        assert mode != "gz"


@pytest.mark.parametrize("name", [".", "./", "a" * 300])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path, name):
    members = [(name, tarfile.REGTYPE, b"1")]
    with pytest.raises(UserError, match="no name of a file|too long"):
        unpacked(tarred(tmp_path / "a.tgz", members), tmp_path / "out")


def test_a_file_with_holes_is_refused(tmp_path):
    """A GNU sparse member: 512 bytes in the archive are any number of bytes on the disk."""
    member = tarfile.TarInfo("a")
    member.size, member.type = 0, tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (2**40 >> 7, 0)  # one hole, and no byte of data
    header[483:495] = b"%011o\0" % (2**33 - 1)  # the size on the disk, 8 GB
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(UserError, match=r"a.tar holds 'a' with holes; refused"):
        unpacked(path, tmp_path / "out")


def test_a_zip_of_an_unknown_compression_is_an_error(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": b"1"})
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 98
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or encrypted"):
        unpacked(path, tmp_path / "out")


def test_an_encrypted_zip_is_an_error(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": b"1"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption, in the member's header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or encrypted"):
        unpacked(path, tmp_path / "out")
