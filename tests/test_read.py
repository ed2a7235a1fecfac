"""Lists and labels: what is read, what is refused, and that nothing else is lost."""

import codecs
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import download
from conftest import Program, opened

GOOD = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"'
AUDIOSET = download.Form({'ytid': '1', 'start': '2', 'end': '3', 'tags': '4'}, ['1', '2', '3', '4'])


def read_line(line: str) -> download.Row | Exception:
    """With csv; that PLAIN_ROW says the same is told below."""
    ((_, row),) = download.understand(download.read_cells(iter([(1, line)]), ','), AUDIOSET, {})
    return row


def read(csvs: pathlib.Path, content: bytes) -> tuple[list[download.Segment], list[str]]:
    (csvs / 'eval_segments.csv').write_bytes(content)
    with opened(csvs) as job:
        complaints = job.reader.skip = Complaints()
        return list(job.rows()), complaints


class Complaints(list):
    __call__ = list.append


def test_a_row_as_published() -> None:
    tags = ('/m/09x0r', '/t/dd00088')
    assert read_line(GOOD) == download.read_plain(GOOD) == download.Row('--PJHxphWEs', 30_000, 40_000, tags)


@pytest.mark.parametrize(
    ('line', 'why'),
    [
        pytest.param(
            '--PJHxphWEs, 30.000, 40.000', '3 of 4 cells; expected ytid, start, end, tags', id='a field is missing'
        ),
        pytest.param('../../etc/pw, 30.000, 40.000, "/m/09x0r"', 'names no video', id='a path'),
        pytest.param('short, 30.000, 40.000, "/m/09x0r"', 'names no video', id='too short'),
        pytest.param('--PJHxphWEs\u0661, 30.000, 40.000, "/m/09x0r"', 'names no video', id='too long'),
        pytest.param('--PJHxphWE\u0661, 30.000, 40.000, "/m/09x0r"', 'names no video', id='a digit, but not ASCII'),
        pytest.param('--PJHxphWEs, thirty, 40.000, "/m/09x0r"', 'thirty', id='no number'),
        pytest.param('--PJHxphWEs, nan, 40.000, "/m/09x0r"', 'nan', id='nan'),
        pytest.param('--PJHxphWEs, 30.000, inf, "/m/09x0r"', 'inf', id='inf'),
        pytest.param('--PJHxphWEs, -1.000, 9.000, "/m/09x0r"', 'no clip', id='negative'),
        pytest.param('--PJHxphWEs, 40.000, 30.000, "/m/09x0r"', 'no clip', id='reversed'),
        pytest.param('--PJHxphWEs, 30.000, 30.000, "/m/09x0r"', 'no clip', id='empty'),
    ],
)
def test_a_malformed_row_is_refused(line: str, why: str) -> None:
    assert download.read_plain(line) is None
    with pytest.raises(ValueError, match=why):
        raise read_line(line)


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [
        pytest.param(f'{GOOD}\r\n'.encode(), [], id='CRLF'),
        pytest.param(b'\xef\xbb\xbf' + GOOD.encode(), [], id='BOM'),
        pytest.param(f'# a "comment, with a quote\n\n   \n{GOOD}\n'.encode(), [], id='comments and blank lines'),
        pytest.param(f'aaaaaaaaaaa, 1, 2, "/m/1\n{GOOD}\n'.encode(), ['line 1'], id='a quote that never closes'),
        pytest.param(b'aaaaaaaaaaa, 1\0, 2, "/m/1"\n' + GOOD.encode(), ['line 1'], id='a NUL byte'),
        pytest.param(b'\xff\xfe\xfa\n' + GOOD.encode(), ['line 1'], id='no UTF-8'),
        pytest.param(b'"--PJHxphWEs","30.0","40.0","/m/09x0r,/t/dd00088"', [], id='all fields in quotes'),
        pytest.param(b'a\ttab\n' + GOOD.encode(), ['line 1'], id='a first line with a tab'),
    ],
)
def test_the_rest_of_a_list_survives(tmp_path: pathlib.Path, content: bytes, complaint: list[str]) -> None:
    segments, complaints = read(tmp_path, content)
    assert segments[-1][:4] == ('--PJHxphWEs', 30, 40, 'eval')
    assert len(complaints) == len(complaint)
    assert all(expected in said for expected, said in zip(complaint, complaints, strict=True))


@given(st.lists(st.one_of(st.just(GOOD), st.text(st.characters(exclude_characters=',"'))), max_size=20))
def test_every_line_is_read_or_complained_about(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    content = '\n'.join([GOOD, *lines, *[GOOD] * (2 * ''.join(lines).count('\n') + len(lines) + 1)]).encode(
        errors='surrogatepass'
    )
    segments, complaints = read(tmp_path_factory.mktemp('csvs'), content)
    seen = content.removeprefix(codecs.BOM_UTF8).split(b'\n')
    rows = [line for line in seen if line.decode(errors='replace').strip() and not line.startswith(b'#')]
    assert len(segments) + len(complaints) == len(rows)
    assert len(segments) == 1


@given(
    st.from_regex(r'[A-Za-z0-9_-]{11}', fullmatch=True),
    st.integers(0, 600_000),
    st.integers(1, 10_000),
    st.lists(st.sampled_from(['/m/09x0r', '/t/dd00088', '/m/07q6cd_']), min_size=1, unique=True),
)
def test_what_is_written_is_read(ytid: str, start: int, length: int, tags: list[str]) -> None:
    line = f'{ytid}, {start / 1000:.3f}, {(start + length) / 1000:.3f}, "{",".join(tags)}"'
    row = download.Row(ytid, start, start + length, tuple(tags))
    assert read_line(line) == read_line(line.replace(' ', '')) == download.read_plain(line) == row


def test_malformed_and_repeated_rows_are_said_counted_and_skipped(program: Program) -> None:
    good = [f'{n:011}, 30.000, 40.000, "/m/09x0r"' for n in range(3)]
    program.offer(good[0], 'nonsense', good[1], good[0], good[2])
    said = program.run()
    assert 'eval_segments.csv, line 5: skipped, 1 of 4 cells' in said.stdout
    assert said.stdout.count('line 7: skipped, 00000000000 is already a row') == 1
    assert 'rows skipped            2' in said.stdout
    assert len(program.metadata) == 3


def test_labels_keep_their_names_and_unknown_tags_their_mid(program: Program) -> None:
    program.offer('aaaaaaaaaaa, 30.000, 40.000, "/m/05zppz,/m/unknown"', 'bbbbbbbbbbb, 30.000, 40.000, "/m/unknown"')
    said = program.run()
    assert program.metadata['id_aaaaaaaaaaa']['labels'] == ['Male speech, man speaking', '/m/unknown']
    assert said.stdout.count('/m/unknown: has no label') == 1


def test_a_list_that_the_user_put_there_wins(program: Program) -> None:
    program.offer('aaaaaaaaaaa, 30.000, 40.000, "/m/09x0r"')
    csvs = program.root / 'csvs'
    csvs.mkdir(parents=True)
    (csvs / 'eval_segments.csv').write_text('bbbbbbbbbbb, 30.000, 40.000, "/m/09x0r"\n')
    (csvs / 'mine_segments.csv').write_text('ccccccccccc, 30.000, 40.000, "/m/09x0r"\n')
    program.run('--splits', 'eval', 'mine')
    assert sorted(program.metadata) == ['id_bbbbbbbbbbb', 'id_ccccccccccc_30000']
    assert program.site.counts['csv'] == 1


def test_a_file_that_is_no_list_of_labels(program: Program) -> None:
    program.offer('aaaaaaaaaaa, 30.000, 40.000, "/m/09x0r"')
    program.site.files['class_labels_indices.csv'] = b'<html>oops'
    assert 'class_labels_indices.csv: not as AudioSet publishes it' in program.run(status=2).stderr


def test_numbers_that_no_ledger_holds_cost_their_row_only(tmp_path: pathlib.Path) -> None:
    odd = 'aaaaaaaaaaa, 1e300, 2e300, "/m/1"\nbbbbbbbbbbb, 30.0001, 30.0002, "/m/1"\n'
    segments, complaints = read(tmp_path, f'{odd}{GOOD}\n{GOOD[1:11]}_{GOOD[11:]}\n'.encode())
    assert [segment.ytid for segment in segments] == ['--PJHxphWEs', '-PJHxphWEs_']
    assert len(complaints) == 2


# ------------------------------------------------------------------------------------------------ read once, and anew


def rows_of(job: download.Job) -> list[tuple]:
    """What the lists ask for, as the ledger has it."""
    return job.db.execute(
        'SELECT l.name, position, c.name, start_ms, end_ms, tags, labels, extra FROM asks JOIN list l ON l.id = list '
        'JOIN clip c ON c.id = clip JOIN tagset t ON t.id = tagset ORDER BY l.name, position'
    ).fetchall()


HEADS = {
    'eval_segments.csv': '# a comment\n',
    'mine.csv': 'ytid,start,end,tags,label,caption\n',
    'mine.tsv': 'ytid\tstart\tend\n',
}
CELLS = st.tuples(
    st.sampled_from(['aaaaaaaaaaa', 'bbbbbbbbbbb', 'not an id']),
    st.sampled_from(['1,11', '2,12', '2,5']),
    st.sampled_from(['/m/1', '/m/2|/m/1', '']),
    st.sampled_from(['Dog', 'dog bark', '']),
    st.sampled_from(['it barks', '']),
)


@given(st.sampled_from(list(HEADS)), st.lists(CELLS, min_size=1, max_size=12), st.integers(1, 5))
def test_a_list_that_is_read_bit_by_bit_is_read_as_at_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, cells: list[tuple], lines: int
) -> None:
    csvs = tmp_path_factory.mktemp('csvs')
    split, separator = name.partition('.')[0].removesuffix('_segments'), '\t' if name.endswith('.tsv') else ','
    cells += [('ccccccccccc', *row[1:]) for row in cells]  # most of a list should be rows
    text = '\n'.join(','.join(row).replace(',', separator) for row in cells)
    (csvs / name).write_text(f'{HEADS[name]}{text}')
    with opened(csvs, split) as job:
        job.reader.finish()
        whole, skipped = rows_of(job), download.count_skipped(job)
    for _ in cells:  # interrupted after each step
        with opened(csvs, split, ledger=csvs / 'ledger') as job:
            job.reader.step(lines)
    with opened(csvs, split, ledger=csvs / 'ledger') as job:
        while job.reader.lines:
            job.reader.step(lines)
        assert (rows_of(job), download.count_skipped(job)) == (whole, skipped)


def test_a_list_is_read_once_and_anew_when_it_has_changed(tmp_path: pathlib.Path) -> None:
    path, ledger = tmp_path / 'eval_segments.csv', tmp_path / 'ledger'
    path.write_text(''.join(f'{n:011}, 30.000, 40.000, "/m/09x0r"\n' for n in range(3)))
    with opened(tmp_path, ledger=ledger) as job:
        assert len(list(job.rows())) == 3
    with opened(tmp_path, ledger=ledger) as job:
        assert not job.reader.lines
    with opened(tmp_path, ledger=ledger) as job:
        path.write_text(f'{GOOD}\n')
        assert len(list(job.rows())) == 3
    with opened(tmp_path, ledger=ledger) as job:
        assert [segment.ytid for segment in job.rows()] == ['--PJHxphWEs']
