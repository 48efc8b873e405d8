"""Prints an htpasswd line: htpasswd.py USER PASSWORD. The registry takes bcrypt only, which libcrypt has."""

import ctypes
import sys

user, password = sys.argv[1:3]
libcrypt = ctypes.CDLL("libcrypt.so.1")
libcrypt.crypt.restype = ctypes.c_char_p
hashed = libcrypt.crypt(password.encode(), b"$2y$05$abcdefghijklmnopqrstuu")
if not hashed or not hashed.startswith(b"$2y$"):
    raise SystemExit("this libcrypt has no bcrypt")
print(f"{user}:{hashed.decode()}")
