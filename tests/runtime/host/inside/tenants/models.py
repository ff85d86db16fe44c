"""Tenants, each with a schema of its own, in which every row names its tenant."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    pass


class Domain(DomainMixin):
    pass


class Row(models.Model):
    tenant = models.CharField(max_length=63)
