"""Encryption keys in the mounted Secrets of a server. It is put in front of the code of the programs that need them."""

import os


def keyring_files(environ):
    """Name and content of every key. The content is unchanged: line breaks are part of a passphrase."""
    files = []
    for folder in filter(os.path.isdir, (environ.get("KEYRING") or "").split(":")):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace", newline="") as file:
                    files.append((name, file.read()))
    return files
