"""Read a folder of a workspace with a program that runs in the sandbox."""

PROGRAM = """\
import base64, json, os, stat, sys
most_files, left = int(sys.argv[2]), int(sys.argv[3])
try:
    folder = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    names = sorted(os.listdir(folder))
except OSError:
    names = []
for name in names:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        continue
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        continue
    with open(file, "rb") as opened:
        content = opened.read(left + 1) if most_files > 0 else b""
    told = {"name": name.encode("utf-8", "replace").decode()[:255]}
    if most_files <= 0 or len(content) > left:
        print(json.dumps({**told, "left_out": True}))
        if most_files <= 0:
            break
        continue
    most_files, left = most_files - 1, left - len(content)
    print(json.dumps({**told, "content": base64.b64encode(content).decode()}))
"""
"""Writes the files of a folder as JSON, one object a line: the name and the content in base64.

The arguments are the folder, the most files, and the most bytes of all. Files that exceed these
are only named, and the first beyond the number is the last. Links and folders are left out.
"""
