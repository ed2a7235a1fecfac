"""Settings, their flags, and one clear line for what is wrong."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import download
from conftest import SCRIPT, Program, offset

ID = 'aaaaaaaaaaa'
ROW = f'{ID}, 30.000, 40.000, "/m/09x0r"'
HERE = SCRIPT.parent


def test_every_global_of_the_block_has_a_flag_with_its_comment() -> None:
    tree = ast.parse(SCRIPT.read_text().partition('- types')[0])
    names = [n.target.id for n in tree.body if isinstance(n, ast.AnnAssign)]
    settings = download.read_settings([])
    expected = 'splits ext sample_rate channels num_processes cookie_path limit retries root'
    assert set(expected.split()) <= set(names)
    assert set(vars(settings)) == set(names)
    told = subprocess.run([sys.executable, str(SCRIPT), '--help'], capture_output=True, text=True, check=True).stdout
    assert all(f'--{name.replace("_", "-")}' in told for name in names)
    assert 'Hz; None: the source' in told


@pytest.mark.parametrize(
    ('flags', 'name', 'value'),
    [
        (['--sample-rate', '16000'], 'sample_rate', 16000),
        (['--limit', 'none'], 'limit', None),
        (['--splits', 'eval', 'balanced_train'], 'splits', ['eval', 'balanced_train']),
        (['--ydl-opts', '{"ratelimit": 9}'], 'ydl_opts', {'ratelimit': 9}),
        (['--no-verify'], 'verify', False),
        (['--timeout', '2.5'], 'timeout', 2.5),
    ],
)
def test_flags_have_the_types_of_their_settings(flags: list[str], name: str, value: object) -> None:
    assert getattr(download.read_settings(flags), name) == value


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (['--limit', 'many'], 'limit'),
        (['--limit', '0'], 'limit'),
        (['--ext', 'ogg'], 'm4a, wav, flac, opus, mp3, mp4'),
        (['--sample-rate', '-1'], 'sample_rate'),
        (['--ext', 'opus', '--sample-rate', '44100'], '48000'),
        (['--channels', '3'], 'channels'),
        (['--num-processes', '0'], 'num_processes'),
        (['--retries', '-1'], 'retries'),
        (['--ydl-opts', '[1]'], 'ydl_opts'),
        (['--ydl-opts', '{'], 'ydl-opts'),
        (['--ydl-opts', '{"ignoreerrors": true}'], 'ignoreerrors is decided by this script'),
        (['--ydl-opts', '{"socket_timeout": "x"}'], 'use timeout'),
        (['--ydl-opts', '{"sleep_interval": "x"}'], "sleep_interval = 'x': use a number"),
        (['--ydl-opts', '{"format": "best["}'], 'yt-dlp does not take them: SyntaxError'),
        (['--ydl-opts', '{"extractor_args": "x"}'], 'yt-dlp does not take them: TypeError'),
        (['--exact-frames'], 'mp4'),
        (['--again', 'boredom'], 'again'),
        (['--splits', '../eval'], 'splits'),
        (['--splits'], 'splits'),
        (['--ffmpeg', 'no-such-program'], 'no-such-program'),
        (['--verify', '--merge'], 'one at a time'),
    ],
    ids=' '.join,
)
def test_what_is_wrong_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(download.UsageError, match=re.escape(said)) as refusal:
        download.check_ydl_opts(download.read_settings(flags))
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (['--nonsense'], 'nonsense'),
        (['--ydl-opts', '{"cookiesfrombrowser": ["x"]}'], 'unsupported browser'),
        (['--splits', 'nowhere'], 'nowhere_segments.csv'),
        (['--merge'], 'nothing to merge'),
        (['--ffmpeg', 'true'], 'is no ffmpeg'),
        (['--cookie-path', 'nowhere.txt'], 'nowhere.txt'),
        (['--cookie-path', '/'], 'is no file'),
        (['--splits', 'comments'], 'is not understood; expected a head'),
    ],
    ids=' '.join,
)
def test_what_is_wrong_is_said_in_one_line(program: Program, flags: list[str], said: str) -> None:
    program.offer(ROW)
    (program.root / 'csvs').mkdir(parents=True)
    (program.root / 'csvs' / 'comments_segments.csv').write_bytes(b'# nothing')
    err = program.run(*flags, status=2).stderr
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not program.site.counts['player']


def test_help_shows_each_setting_under_its_heading() -> None:
    told = subprocess.run([sys.executable, str(SCRIPT), '--help'], capture_output=True, text=True, check=True).stdout
    _, *parts = re.split(r'^(\S.*):\n', told.partition('\noptions:\n')[2], flags=re.M)
    under = {heading: f'\n{text}' for heading, text in zip(parts[::2], parts[1::2], strict=True)}
    block = list(download.read_block(SCRIPT.read_text(encoding='utf-8')))
    assert list(under) == list(dict.fromkeys(heading for heading, *_ in block))
    assert {'what to fetch', 'what to make of it', 'how', 'with what'} <= under.keys()
    for heading, name, _, about in block:
        flag = f'--{name.replace("_", "-")}'
        assert about, flag
        shown = re.search(rf'\n  {flag}\b(?!-).*(\n {{5,}}.*)*', under[heading])
        assert shown, f'{flag} is under {heading}'
        assert re.sub(r'\s', '', about) in re.sub(r'\s', '', shown[0]), flag
    assert re.search(r'--per-label \S+ +so many rows of a class', under['what to fetch'])
    assert '--engine {multiprocessing,ray}' in under['how']


def test_settings_may_be_laid_out_over_several_lines() -> None:
    """As a formatter does with long lines."""
    source = """import os

# ---------------- settings
# what to fetch
splits: list[str] = [
    'eval',
    'balanced_train',
]  # eval, balanced_train
per_label: int | None = (
    None  # so many rows of a class; None: all
)
# how
retries: int = (
    3
)  # how often
# ---------------- types
DAY = 86_400  # s
timeout: float = 1  # no setting
"""
    assert list(download.read_block(source)) == [
        ('what to fetch', 'splits', 'list[str]', 'eval, balanced_train'),
        ('what to fetch', 'per_label', 'int | None', 'so many rows of a class; None: all'),
        ('how', 'retries', 'int', 'how often'),
    ]


@pytest.mark.parametrize(
    'edit',
    [
        "sample_rate: int | None = '16k'",
        "splits: list[str] = 'eval'",
        "splits = ('eval',)",
        'limit: int | None = True',
        'ext: str = None',
    ],
)
def test_an_edited_global_of_the_wrong_type(tmp_path: pathlib.Path, edit: str) -> None:
    name = re.split('[: ]', edit)[0]
    edited = re.sub(rf'^{name}: [^#]+  #', lambda _: f'{edit}  #', SCRIPT.read_text(), count=1, flags=re.M)
    (tmp_path / 'download.py').write_text(edited)
    ran = subprocess.run([sys.executable, str(tmp_path / 'download.py')], capture_output=True, text=True)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert name in ran.stderr.replace('-', '_')


@pytest.mark.parametrize(
    'line', ["ext: str = 'wav'", "ext = 'wav'  # mine", "ext='wav'", "ext: str = 'wav' # mine", "ext = 'ogg'"]
)
def test_globals_may_be_edited_carelessly(tmp_path: pathlib.Path, line: str) -> None:
    edited = re.sub(r'^ext: .+$', lambda _: line, SCRIPT.read_text(), count=1, flags=re.M)
    edited = re.sub(r'^limit: .+$', 'limit = 3', edited, count=1, flags=re.M)
    (tmp_path / 'download.py').write_text(edited)
    code = 'import download; s = download.read_settings(["--limit", "4"]); print(s.ext, s.limit)'
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout.split() == ['wav', '4'] if 'wav' in line else "ext = 'ogg'" in ran.stderr


def test_editing_the_globals_is_enough(program: Program) -> None:
    program.offer(ROW)
    program.root.mkdir()
    program.script = program.root / 'download.py'
    edited = SCRIPT.read_text().replace("ext: str = 'm4a'", "ext: str = 'wav'")
    program.script.write_text(edited)
    program.run()
    assert program.clip().suffix == '.wav'


def test_without_root_everything_is_beside_the_script(program: Program) -> None:
    program.offer(ROW, split='unbalanced_train')
    program.root.mkdir()
    shutil.copy(SCRIPT, program.root)
    command = [sys.executable, 'download.py', '--limit', '1']
    subprocess.run(command, cwd=program.root, env=program.env, check=True, capture_output=True)
    assert program.metadata[f'id_{ID}']['split'] == 'unbalanced_train'


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may write anywhere')
def test_an_unwritable_root(program: Program) -> None:
    program.root.mkdir(mode=0o500)
    assert 'cannot be written' in program.run(status=2).stderr


def test_a_root_that_is_a_file(program: Program) -> None:
    program.root.write_text('')
    assert 'cannot be written' in program.run(status=2).stderr


def test_importing_does_nothing(tmp_path: pathlib.Path) -> None:
    code = 'import sys, os; import download; assert not os.listdir(); assert "yt_dlp" not in sys.modules'
    subprocess.run(
        [sys.executable, '-B', '-c', code], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(HERE)}, check=True
    )


def test_ydl_opts_reach_yt_dlp(program: Program) -> None:
    program.offer(ROW)
    program.run('--ydl-opts', '{"format": "251"}', '--ext', 'wav')
    assert program.metadata[f'id_{ID}']['format_id'] == '251'
    assert not program.site.counts['page'], 'the cheap request was enough'


def test_another_client_on_request(program: Program) -> None:
    program.offer(ROW)
    program.run()
    usual = set(program.site.clients)
    program.lose_ledgers()
    program.clip().unlink()
    program.run('--client', 'ios')
    assert 'IOS' in set(program.site.clients) - usual


def test_an_old_ffmpeg_is_named_and_used_all_the_same(program: Program, tmp_path: pathlib.Path) -> None:
    import imageio_ffmpeg

    program.offer(ROW)
    old, real = tmp_path / 'ffmpeg', imageio_ffmpeg.get_ffmpeg_exe()
    refuse = 'case "$*" in *-request_size*) echo "Unrecognized option" >&2; exit 1;; esac'
    hide = f'if [ "$2" = -h ]; then {real} "$@" | grep -v request_size; exit; fi'
    old.write_text(f'#!/bin/sh\n{hide}\n{refuse}\nexec {real} "$@"\n')
    old.chmod(0o755)
    said = program.run('--ffmpeg', str(old))
    assert re.search('too old for -.*request_size', said.stdout)
    assert abs(offset(program.clip(), 30, 10)) <= 0.025


def test_requirements_and_the_inline_block_are_the_same() -> None:
    inline = re.search(r'# dependencies = \[(.+)\]', SCRIPT.read_text())
    assert inline
    listed = [
        line for line in (HERE / 'requirements.txt').read_text().splitlines() if line and not line.startswith('#')
    ]
    assert re.findall(r'"(.+?)"', inline[1]) == listed
