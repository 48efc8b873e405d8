"""A small name server for tests, and a client of 127.0.0.11.

nameserver.py ADDRESS PORT   answers every A question with 192.0.2.7, `missing.*` with
                             NXDOMAIN, and `big.*` over UDP with a truncated answer
nameserver.py ask WAY        asks over udp or tcp; big: UDP is truncated, then TCP
"""
import socket
import socketserver
import struct
import sys


def question_end(packet):
    at = 12
    while packet[at]:
        at += packet[at] + 1
    return at + 5


def answer(packet, udp):
    end = question_end(packet)
    name = packet[12:end - 4]
    flags, answers = 0x8180, b""
    if name.startswith(b"\x07missing"):
        flags |= 3
    elif udp and name.startswith(b"\x03big"):
        flags |= 0x0200
    elif packet[end - 4:end - 2] == b"\0\1":
        answers = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("192.0.2.7")
    header = packet[:2] + struct.pack(">5H", flags, 1, 1 if answers else 0, 0, 0)
    return header + packet[12:end] + answers


class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(answer(self.request[0], True), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        while length := self.rfile.read(2):
            reply = answer(self.rfile.read(struct.unpack(">H", length)[0]), False)
            self.wfile.write(struct.pack(">H", len(reply)) + reply)


def query(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def over_udp(packet):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect(("127.0.0.11", 53))
        s.send(packet)
        return s.recv(4096)


def over_tcp(packet):
    with socket.create_connection(("127.0.0.11", 53), 5) as s:
        s.sendall(struct.pack(">H", len(packet)) + packet)
        stream = s.makefile("rb")
        return stream.read(struct.unpack(">H", stream.read(2))[0])


def ask(way):
    packet = query("big.example" if way == "big" else "plain.example")
    if way == "big":
        assert over_udp(packet)[2] & 2, "not truncated"
    reply = (over_udp if way == "udp" else over_tcp)(packet)
    assert reply[:2] == packet[:2] and reply.endswith(socket.inet_aton("192.0.2.7")), reply
    print("answered")


if sys.argv[1] == "ask":
    ask(sys.argv[2])
else:
    place = (sys.argv[1], int(sys.argv[2]))
    import threading
    threading.Thread(target=socketserver.ThreadingUDPServer(place, Udp).serve_forever, daemon=True).start()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(place, Tcp).serve_forever()
