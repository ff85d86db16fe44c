from django.urls import path

from bench.project import views

urlpatterns = [
    path("async/hello", views.hello),
    path("async/row/<int:pk>", views.row),
    path("async/rows", views.rows),
    path("async/fanout", views.fanout),
    path("async/session", views.session),
    path("async/cache", views.cache),
    path("async/blocking", views.blocking),
    path("def/blocking", views.blocking),
    path("def/hello", views.hello_def),
    path("def/row/<int:pk>", views.row_def),
    path("def/rows", views.rows_def),
    path("def/fanout", views.fanout_def),
    path("def/session", views.session_def),
    path("def/cache", views.cache_def),
    path("asyncdb/row/<int:pk>", views.row_asyncdb),
    path("asyncdb/rows", views.rows_asyncdb),
    # where login_required sends whoever has no session; a redirect is no answer that counts
    path("login/", views.hello_def, name="login"),
]
