"""dribble.py URL BYTES PORT-FILE: passes connections on to a server, and breaks all of them off for good after so many bytes."""
import socket, sys, threading
from urllib.parse import urlsplit

server = urlsplit(sys.argv[1])
left = int(sys.argv[2])
lock = threading.Lock()


def pump(source, target, counted):
    global left
    try:
        while data := source.recv(65536):
            if counted:
                with lock:
                    left -= len(data)
                    if left <= 0:
                        raise OSError
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


with socket.create_server(("127.0.0.1", 0)) as listener:
    with open(sys.argv[3], "w") as file:
        print(listener.getsockname()[1], file=file)
    while True:
        client, _ = listener.accept()
        if left <= 0:
            client.close()
            continue
        upstream = socket.create_connection((server.hostname, server.port))
        threading.Thread(target=pump, args=(client, upstream, True), daemon=True).start()
        threading.Thread(target=pump, args=(upstream, client, False), daemon=True).start()
