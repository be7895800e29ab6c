import asyncio, logging, signal, sys
from worker.running import Worker
async def main():
    w = Worker(sys.argv[1])
    for s in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(s, w.stop)
    await w.run()
logging.basicConfig(level=logging.INFO)
asyncio.run(main())
