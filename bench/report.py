        "contestants, PgBouncer and PostgreSQL share these cores, so that ratios within the run count, and not "
        f"the figures. Commit {report['commit']}; load average {report['load']} when it began. How each "
