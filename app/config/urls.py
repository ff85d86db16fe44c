from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path, re_path

from core import health, views

urlpatterns = [
    path("", views.home, name="home"),
    path("visits/", views.visits, name="visits"),
    path("dashboard/", include("dashboard.urls")),
    path("cache/", include("cache.urls")),
    path("jobs/", include("jobs.urls")),
    path("chat/", include("chat.urls")),
    path("lab/", include("lab.urls")),
    path("legacy/", include("legacy.urls")),
    path("login/", LoginView.as_view(template_name="core/login.html"), name="login"),
    path("favicon.ico", views.favicon),
    path("account/", views.account, name="account"),
    path("account/name", views.account_name, name="account-name"),
    re_path(r"^source/(?P<path>([a-z_]+/)+[a-z_]+\.py)$", views.source, name="source"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("api/", include("api.urls")),
    path("posts/", include("posts.urls")),
    path("upkeep/", include("upkeep.urls")),
    path("livez", health.livez),
    path("readyz", health.readyz),
]
