#!/usr/bin/env python3
"""A TCP proxy that reads the Kafka protocol between a client and a broker, and harms it on command.

It changes no byte: each request and answer is passed on whole, late, or not at all. The broker's PROXIED listener
advertises the proxy's port (broker.Node.proxy), so clients that come in here stay here.

  with Proxy(listen, target) as p:
      p.drop_answer(Proxy.END_TXN)        the broker does it, the client never hears of it, the connection is cut
      p.delay(Proxy.PRODUCE, 2.0)         each such request waits before it is passed on
      p.black_hole(Proxy.END_TXN)         such requests are swallowed; the connection stays
      p.heal()                            no more of anything
      p.done["answer dropped"]            what was struck so far, as (key, correlation id)

  proxy.py --listen PORT --target PORT [--drop-answer KEY:N] [--delay KEY:SECONDS] [--black-hole KEY]
"""
import argparse
import asyncio
import struct
import sys
import threading
from collections import defaultdict

LIMIT = 128 << 20  # of a request or answer; the broker's own is 100 MiB


class Proxy:
    PRODUCE, FETCH, OFFSET_COMMIT, JOIN_GROUP, HEARTBEAT, INIT_PRODUCER_ID = 0, 1, 8, 11, 12, 22
    ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 24, 25, 26, 28

    def __init__(self, listen, target):
        self.listen, self.target = listen, target
        self.lock = threading.Lock()
        self.seen, self.done = defaultdict(int), defaultdict(list)
        self.loop, self.ready, self.thread, self.failed = None, threading.Event(), None, None
        self.connections = set()
        self.heal()

    # ---- commands; any thread ----
    def heal(self):
        with self.lock:
            self.drops, self.delays, self.holes = {}, {}, set()

    def drop_answer(self, key, nth=1):
        """The answer of the nth request with this ApiKey from now on."""
        with self.lock:
            self.drops[key] = self.seen[key] + nth

    def delay(self, key, seconds):
        with self.lock:
            self.delays[key] = seconds

    def black_hole(self, key):
        with self.lock:
            self.holes.add(key)

    def cut(self):
        """Every connection, now."""
        self.loop.call_soon_threadsafe(lambda: [w.transport.abort() for w in list(self.connections)])

    # ---- the loop ----
    async def message(self, stream):
        head = await stream.readexactly(4)
        n = struct.unpack(">i", head)[0]
        if not 0 <= n <= LIMIT:
            raise ConnectionError(f"a message of {n} bytes: not Kafka's protocol, or TLS")
        return head + await stream.readexactly(n)

    async def requests(self, client, broker, doomed):
        while True:
            m = await self.message(client)
            key, _, correlation = struct.unpack_from(">hhi", m, 4)
            with self.lock:
                self.seen[key] += 1
                hole, wait = key in self.holes, self.delays.get(key, 0)
                if self.drops.get(key) == self.seen[key]:
                    doomed[correlation] = key
                    del self.drops[key]
                if hole:
                    self.done["swallowed"].append((key, correlation))
            if wait:
                await asyncio.sleep(wait)
            if not hole:
                broker.write(m)
                await broker.drain()

    async def answers(self, broker, client, doomed):
        while True:
            m = await self.message(broker)
            correlation = struct.unpack_from(">i", m, 4)[0]
            if correlation in doomed:
                with self.lock:
                    self.done["answer dropped"].append((doomed.pop(correlation), correlation))
                return
            client.write(m)
            await client.drain()

    async def connection(self, client_in, client_out):
        doomed, tasks, broker_out = {}, [], None
        self.connections.add(client_out)
        try:
            broker_in, broker_out = await asyncio.open_connection("127.0.0.1", self.target)
            self.connections.add(broker_out)
            tasks = [asyncio.ensure_future(self.requests(client_in, broker_out, doomed)),
                     asyncio.ensure_future(self.answers(broker_in, client_out, doomed))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the broker is down: the client sees its connection closed
        finally:
            for t in tasks:
                t.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for w in (client_out, broker_out):
                if w:
                    self.connections.discard(w)
                    w.transport.abort()

    async def serve(self):
        server = await asyncio.start_server(self.connection, "127.0.0.1", self.listen, limit=1 << 20)
        self.stopping = asyncio.Event()
        self.ready.set()
        await self.stopping.wait()
        server.close()
        for w in list(self.connections):
            w.transport.abort()
        await asyncio.sleep(0.05)

    def run(self):
        self.loop = asyncio.new_event_loop()
        try:
            self.loop.run_until_complete(self.serve())
        except OSError as e:
            self.failed = e
        finally:
            self.ready.set()

    def __enter__(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        self.ready.wait(10)
        if self.failed:
            raise OSError(f"the proxy cannot listen on {self.listen}: {self.failed}")
        return self

    def __exit__(self, *_):
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.stopping.set)
            self.thread.join(10)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--listen", type=int, required=True)
    p.add_argument("--target", type=int, required=True)
    p.add_argument("--drop-answer", action="append", default=[])
    p.add_argument("--delay", action="append", default=[])
    p.add_argument("--black-hole", action="append", type=int, default=[])
    args = p.parse_args()
    with Proxy(args.listen, args.target) as proxy:
        for one in args.drop_answer:
            proxy.drop_answer(*map(int, one.split(":")))
        for one in args.delay:
            key, seconds = one.split(":")
            proxy.delay(int(key), float(seconds))
        for key in args.black_hole:
            proxy.black_hole(key)
        proxy.thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
