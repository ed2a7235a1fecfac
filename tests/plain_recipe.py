"""What most scripts for this data set do, for the benchmark to compare with.

    python tests/plain_recipe.py FOLDER < rows.json

A fresh YoutubeDL per row in a Pool of two processes per core, -ss and -to after the input, FFmpegExtractAudio at the
end, which encodes anew, for the best audio is Opus and m4a is wanted.
"""

import json
import multiprocessing
import os
import sys

import yt_dlp


def fetch(row: list) -> None:
    folder, ytid, start, end = row
    options = {
        'format': 'bestaudio/best',
        'external_downloader': 'ffmpeg',
        'external_downloader_args': ['-ss', str(start), '-to', str(end), '-loglevel', 'panic'],
        'postprocessors': [{'key': 'FFmpegExtractAudio', 'preferredcodec': 'm4a'}],
        'outtmpl': os.path.join(folder, 'wavs', f'id_{ytid}.%(ext)s'),
        'quiet': True,
        'compat_opts': {'no-certifi'},
    }
    with yt_dlp.YoutubeDL(options) as ydl:
        ydl.download([f'https://www.youtube.com/watch?v={ytid}'])


if __name__ == '__main__':
    rows = [[sys.argv[1], *row] for row in json.load(sys.stdin)]
    with multiprocessing.get_context('spawn').Pool(2 * (os.cpu_count() or 1)) as pool:
        pool.map(fetch, rows, chunksize=1)
