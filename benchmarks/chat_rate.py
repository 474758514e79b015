"""Calls a second to a local chat server: `ChatModel` against a bare asynchronous client.

The same server process, which answers after 50 ms, the same requests, the same number at once; in
turns, medians of 5 rounds. What is wanted is at least 0.9.
"""

import asyncio
import json
import multiprocessing
import statistics
import time

import httpx

from zo_bilevel.adapters import ChatModel

LATENCY_S, AT_ONCE, CALLS, ROUNDS = 0.05, 16, 320, 5
REPLY = {
    "choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 1},
}


async def answer(reader, writer):
    content = json.dumps(REPLY).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    try:
        while line := await reader.readline():
            length = 0
            while line.strip():
                name, _, value = line.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
                line = await reader.readline()
            await reader.readexactly(length)
            await asyncio.sleep(LATENCY_S)
            writer.write(head + content)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


def serve(pipe):
    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def conversations(k):
    return [[{"role": "user", "content": f"question {k}-{n}"}] for n in range(CALLS)]


def bare(url, k):
    async def main():
        places = asyncio.Semaphore(AT_ONCE)
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client:

            async def ask(messages):
                body = {"model": "tiny", "messages": messages, "temperature": 0.0, "max_tokens": 16}
                async with places:
                    answer = await client.post(f"{url}/chat/completions", json=body)
                return answer.json()["choices"][0]["message"]["content"]

            await asyncio.gather(*map(ask, conversations(k)[:AT_ONCE]))  # connects
            began = time.perf_counter()
            await asyncio.gather(*map(ask, conversations(k)))
            return CALLS / (time.perf_counter() - began)

    return asyncio.run(main())


def ours(url, k):
    chat = ChatModel(url, "tiny", key_variable=None, max_concurrent=AT_ONCE)
    chat.ask_all(conversations(-k - 1)[:AT_ONCE])
    began = time.perf_counter()
    chat.ask_all(conversations(k))
    rate = CALLS / (time.perf_counter() - began)
    chat.close()
    return rate


def main():
    receive, send = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(send,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{receive.recv()}/v1"
    rates = [(bare(url, k), ours(url, k)) for k in range(ROUNDS)]
    for place, name in enumerate(("bare asynchronous client", "ChatModel")):
        middle = statistics.median(pair[place] for pair in rates)
        print(f"{name}: {middle:.0f} calls/s (of {AT_ONCE / LATENCY_S:.0f})")
    print(f"ratio: {statistics.median(mine / theirs for theirs, mine in rates):.2f}")
    server.terminate()


if __name__ == "__main__":
    main()
