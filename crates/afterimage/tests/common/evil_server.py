"""A scripted NBD server that breaks one rule of the protocol, named on its command line."""
import os, socket, struct, sys

path, evil = sys.argv[1], sys.argv[2]
REPLY, STRUCTURED = 0x3e889045565a9, 0x668e33ef
SIZE = 1 << 24


def read(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def option_reply(s, option, kind, data=b""):
    s.sendall(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)


def handshake(s):
    s.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3))
    read(s, 4)
    structured = False
    while True:
        read(s, 8)
        option, length = struct.unpack(">II", read(s, 8))
        read(s, length)
        if option == 8:
            structured = True
            option_reply(s, option, 1)
        elif option == 7:
            size = (1 << 64) - 512 if evil == "negative-size" else SIZE
            option_reply(s, option, 3, struct.pack(">HQH", 0, size, 1 | 4))
            if evil == "huge-block":
                option_reply(s, option, 3, struct.pack(">HIII", 3, 1 << 31, 1 << 31, 1))
            if evil == "endless-info":
                while True:
                    option_reply(s, option, 3, struct.pack(">HQH", 0, SIZE, 1 | 4))
            option_reply(s, option, 1)
            return structured
        else:
            option_reply(s, option, (1 << 31) | 1)


def chunk(s, cookie, data, flags=1, kind=1):
    s.sendall(struct.pack(">IHHQI", STRUCTURED, flags, kind, cookie, len(data)) + data)


def serve(s):
    handshake(s)
    while True:
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", read(s, 28))
        if kind != 0:
            continue
        data = lambda at, n: struct.pack(">Q", at) + bytes(n)
        if evil == "truncated":
            s.sendall(struct.pack(">IHHQI", STRUCTURED, 1, 1, cookie, length + 8) + bytes(100))
            return
        elif evil == "bad-reply-cookie":
            chunk(s, cookie ^ 0x5555, data(offset, length))
        elif evil == "reply-outside":
            chunk(s, cookie, data(offset + length, length))
        elif evil == "short-coverage":
            chunk(s, cookie, data(offset, length // 2))
        elif evil == "overlap":
            chunk(s, cookie, data(offset, length), flags=0)
            chunk(s, cookie, data(offset, length))
        elif evil == "simple-when-structured":
            s.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + bytes(length))
        else:
            chunk(s, cookie, bytes(3))


listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
while True:
    s, _ = listener.accept()
    if os.fork() == 0:
        try:
            if evil == "garbage":
                s.sendall(os.urandom(4096))
                s.recv(4096)
            elif evil == "silent":
                s.recv(1 << 20)
                s.recv(1 << 20)
            else:
                serve(s)
        except (EOFError, OSError):
            pass
        os._exit(0)
    s.close()
