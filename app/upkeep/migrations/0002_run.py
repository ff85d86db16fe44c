from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("upkeep", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Run",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
            ],
        ),
    ]
