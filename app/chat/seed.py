"""Believable rooms and messages for seed_data."""

from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.utils import timezone

from chat.models import Message, Room
from chat.services import slug_of

EACH = 60  # messages a room
ROOMS = {
    "Lobby": "both",
    "Operations": "en",
    "비동기 장고": "ko",
    "맛집 이야기": "ko",
}
LINES = {
    "en": [
        "Morning! Has anybody looked at the slow query log yet?",
        "The deploy went through, nobody was thrown out of this room.",
        "I moved the report to an async view, and the page no longer waits for it.",
        "Which of you restarted Daphne? My browser was back before I noticed.",
        "Try it with 500 clients, it stays at about the same latency.",
        "That was the lazy foreign key again. select_related fixed it.",
        "Lunch at half past twelve?",
        "I wrote it down in the runbook, second page.",
        "Could somebody review the migration? It is a small one.",
        "Thanks, that was quick.",
        "The dashboard draws both waterfalls now, have a look ☂",
        "Let's not touch it on a Friday.",
    ],
    "ko": [
        "좋은 아침입니다! 느린 쿼리 로그 보신 분 계세요?",
        "배포 끝났습니다. 채팅은 한 번도 끊기지 않았네요.",
        "보고서 화면을 비동기 뷰로 옮겼더니 기다림이 없어졌습니다.",
        "방금 다시 연결됐는데 놓친 메시지가 하나도 없어요.",
        "외래 키를 미리 불러오지 않아서 생긴 오류였습니다.",
        "점심은 열두 시 반 어떠세요? 근처에 국밥집이 새로 생겼어요.",
        "운영 문서에 정리해 두었습니다. 두 번째 쪽이에요.",
        "마이그레이션 검토 부탁드립니다. 아주 작습니다.",
        "감사합니다. 정말 빠르네요!",
        "금요일에는 건드리지 맙시다 ^^",
        "두 폭포 그림이 나란히 보이니 이해가 쉽네요 ☂",
        "동시에 500명이 들어와도 괜찮은지 시험해 봅시다.",
    ],
}


def add(chance, usernames):
    """How many messages were added: rooms that are there stay as they are."""
    people = list(User.objects.filter(username__in=usernames[:32]).order_by("username"))
    speakers = {
        "both": people,
        "ko": [user for user in people if "가" <= user.first_name[:1] <= "힣"],
        "en": [user for user in people if not "가" <= user.first_name[:1] <= "힣"],
    }
    now, made = timezone.now(), 0
    for name, language in ROOMS.items():
        room, new = Room.objects.get_or_create(slug=slug_of(name), defaults={"name": name, "last": EACH})
        # drawn also for a room that is there: the others stay the same
        ago = sorted((chance.randrange(7 * 24 * 60) for _ in range(EACH)), reverse=True)
        messages = []
        for number, minutes in enumerate(ago, 1):
            author = chance.choice(speakers[language] or people)
            own = "ko" if "가" <= author.first_name[:1] <= "힣" else "en"
            messages.append(
                Message(
                    room=room,
                    number=number,
                    author=author,
                    key=UUID(int=chance.getrandbits(128)),
                    text=chance.choice(LINES[own]),
                    at=now - timedelta(minutes=minutes),
                )
            )
        if new:
            Message.objects.bulk_create(messages)
            made += EACH
    return made
