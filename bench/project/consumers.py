from channels.generic.websocket import AsyncWebsocketConsumer

GROUP = "bench"


class Broadcast(AsyncWebsocketConsumer):
    """What one says, all hear."""

    async def connect(self):
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send(GROUP, {"type": "tell", "text": text_data})

    async def tell(self, event):
        await self.send(text_data=event["text"])
