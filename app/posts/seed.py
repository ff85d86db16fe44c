"""Believable posts for seed_data."""

from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from posts.models import Author, Post, Tag

POSTS = 400

SUBJECTS = {
    "en": [
        ("Moving a sync view to async", ["async", "views"]),
        ("What transaction pooling changed for us", ["postgresql", "pgbouncer"]),
        ("A week without lost requests", ["deploy", "gunicorn"]),
        ("Counting queries in tests", ["orm", "testing"]),
        ("When a plain def view is the better one", ["async", "performance"]),
        ("Streaming a large file without a stall", ["streaming", "async"]),
        ("Reading the journal at three in the morning", ["operations", "systemd"]),
        ("How we time out a slow upstream", ["httpx", "async"]),
    ],
    "ko": [
        ("동기 뷰를 비동기로 옮기기", ["비동기", "뷰"]),
        ("트랜잭션 풀링을 쓰면서 바뀐 점", ["데이터베이스", "pgbouncer"]),
        ("요청을 하나도 잃지 않은 배포", ["배포", "gunicorn"]),
        ("테스트에서 쿼리 수를 세는 이유", ["orm", "테스트"]),
        ("비동기가 오히려 느린 경우", ["비동기", "성능"]),
        ("큰 파일을 조금씩 내려보내기", ["스트리밍", "비동기"]),
        ("새벽 세 시에 로그를 읽는 법", ["운영", "systemd"]),
        ("느린 외부 API를 기다리지 않기", ["httpx", "비동기"]),
    ],
}
ENDINGS = {
    "en": ["first steps", "what we measured", "a mistake worth sharing", "notes from production", "part two"],
    "ko": ["첫걸음", "측정 결과", "함께 나누는 실수", "운영 노트", "두 번째 이야기"],
}
SENTENCES = {
    "en": [
        "We began with the view that waits longest, and left the others alone.",
        "The figure that mattered was the slowest request of a hundred, not the mean.",
        "A relation that was not loaded beforehand raised an error, and that was good luck.",
        "The database saw fewer connections than before, although more people were on the site.",
        "It took an afternoon, most of it spent on one signal handler that blocked.",
        "Next time we would write the test first: it is eight lines long.",
        "Nothing was lost during the deploy, and nobody noticed, as it should be.",
    ],
    "ko": [
        "가장 오래 기다리는 뷰부터 시작하고 나머지는 그대로 두었습니다.",
        "평균보다 백 번 가운데 가장 느린 요청이 더 중요했습니다.",
        "미리 불러오지 않은 관계에서 오류가 났는데, 오히려 다행이었습니다.",
        "방문자는 늘었지만 데이터베이스 연결 수는 줄었습니다.",
        "반나절이 걸렸고, 대부분은 멈춰 있던 시그널 하나 때문이었습니다.",
        "다음에는 테스트를 먼저 쓰겠습니다. 여덟 줄이면 충분합니다.",
        "배포하는 동안 아무것도 잃지 않았고 아무도 눈치채지 못했습니다.",
    ],
}


def add(chance, usernames):
    """How many posts were added."""
    # by those who cannot log in: what somebody wrote with a demo account does not count
    if Post.objects.filter(author__user__username__startswith="reader").exists():
        return 0
    writers = User.objects.filter(username__in=usernames[:62])
    Author.objects.bulk_create(
        [Author(user=user, name=user.get_full_name()) for user in writers.filter(author=None)]
    )
    everybody = list(Author.objects.filter(user__in=writers).order_by("user__username"))
    authors = {
        language: [author for author in everybody if korean(author) == (language == "ko")]
        for language in SUBJECTS
    }
    now = timezone.now()
    made, tagged = [], []
    for _ in range(POSTS):
        language = "ko" if chance.random() < 0.4 else "en"
        subject, tags = chance.choice(SUBJECTS[language])
        at = now - timedelta(minutes=chance.randrange(365 * 24 * 60))
        paragraphs = [" ".join(chance.sample(SENTENCES[language], 3)) for _ in range(chance.randint(1, 4))]
        made.append(
            Post(
                author=chance.choice(authors[language]),
                title=f"{subject}: {chance.choice(ENDINGS[language])}",
                body="\n\n".join(paragraphs),
                created_at=at,
                views=chance.randrange(2000),
            )
        )
        tagged.append(tags)
    Post.objects.bulk_create(made)
    names = sorted({name for tags in tagged for name in tags})
    Tag.objects.bulk_create([Tag(name=name) for name in names], ignore_conflicts=True)
    known = {tag.name: tag.pk for tag in Tag.objects.filter(name__in=names)}
    link = Post.tags.through
    link.objects.bulk_create(
        link(post_id=post.pk, tag_id=known[name])
        for post, names in zip(made, tagged, strict=True)
        for name in names
    )
    return len(made)


def korean(author):
    return "가" <= author.name[:1] <= "힣"
