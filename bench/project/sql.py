"""The same rows without the ORM, for FastAPI and pergola_runtime.asyncdb: as a team would write it."""

from bench.project.names import AUTHOR, ROWS

COLUMNS = "id, author_id, title, body, created_at, updated_at, views, words"
ONE = f"SELECT {COLUMNS} FROM posts_post WHERE id = %s"  # noqa: S608
MANY = f"""
SELECT post.id, post.title, post.body, author.name, array_agg(tag.name ORDER BY tag.name)
FROM posts_post post
JOIN posts_author author ON author.id = post.author_id
JOIN posts_post_tags link ON link.post_id = post.id
JOIN posts_tag tag ON tag.id = link.tag_id
WHERE author.name = '{AUTHOR}'
GROUP BY post.id, author.name ORDER BY post.id LIMIT {ROWS}
"""  # noqa: S608


async def one(connection, pk):
    row = await (await connection.execute(ONE, [pk])).fetchone()
    return {"id": row[0], "title": row[2], "body": row[3]}


async def many(connection):
    found = await (await connection.execute(MANY)).fetchall()
    return {
        "posts": [
            {"id": row[0], "title": row[1], "body": row[2], "author": row[3], "tags": row[4]} for row in found
        ]
    }
