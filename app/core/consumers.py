from channels.generic.websocket import AsyncWebsocketConsumer

MAX_BYTES = 64 * 1024
TOO_LARGE = 4009  # Daphne sends no code between 1001 and 2999, so 1009 is not to be had


class EchoConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        size = len(bytes_data) if bytes_data is not None else len(text_data.encode())
        if size > MAX_BYTES:
            await self.close(TOO_LARGE)
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)
