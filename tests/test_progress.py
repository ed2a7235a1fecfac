"""What the user sees, on a terminal and in a file."""

import os
import re
import struct
import subprocess
import sys

import pytest

import youtube as stand_in
from conftest import Program

fcntl, pty, termios = (
    pytest.importorskip(name, reason='needs a Unix terminal') for name in ['fcntl', 'pty', 'termios']
)


def test_a_terminal_shows_a_bar(program: Program) -> None:
    program.offer(*stand_in.rows(20))
    program.site.add(stand_in.rows(20)[0][:11], fault='private')
    program.run('--limit', '5')
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 120, 0, 0))
    process = program.start(stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b''
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait() == 0
    text = seen.decode()
    assert '20 rows, 5 settled (4 done), 15 to do' in text
    assert re.search(r'\b25%.*5/20', text)
    assert re.search(r'20/20 .*done=19, gone=1, failed=0', text)
    assert 'clip/s' in text
    assert re.search(r'gone +1\s+private +1', text)


@pytest.mark.parametrize('method', ['forkserver', 'spawn'])
def test_every_way_to_start_workers(program: Program, method: str) -> None:
    """spawn is what Windows has."""
    program.offer(*stand_in.rows(3))
    code = (
        f'import sys; sys.path.insert(0, {str(program.script.parent)!r}); import download, multiprocessing\n'
        f'multiprocessing.get_all_start_methods = lambda: [{method!r}]\n'
        f'sys.exit(download.main(["--root", {str(program.root)!r}, "--splits", "eval", "--num-processes", "2"]))'
    )
    ran = subprocess.run([sys.executable, '-c', code], env=program.env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert len(program.clips()) == 3


def test_a_file_gets_plain_lines(program: Program) -> None:
    program.offer(*stand_in.rows(30))
    program.site.latency = 0.05
    code = (
        f'import sys; sys.path.insert(0, {str(program.script.parent)!r}); import download\n'
        'download.Progress.EVERY = 0.2\n'
        f'sys.exit(download.main(["--root", {str(program.root)!r}, "--splits", "eval", "--num-processes", "2"]))'
    )
    ran = subprocess.run([sys.executable, '-c', code], env=program.env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert not re.search(r'[\x00-\x08\x0b-\x1f\x7f]', ran.stdout + ran.stderr)
    assert re.search(r'\d+/30 \[.*clip.*done=\d+, gone=0, failed=0', ran.stdout)
    assert re.search(r'^done +30$', ran.stdout, re.M)
