{% test totals_equal(model, total, to, to_total=none) %}

    with
        actual as (select coalesce({{ total }}, 0) as total from {{ model }}),

        expected as (
            select coalesce({{ to_total or total }}, 0) as total from {{ to }}
        ),

        final as (
            select actual.total as actual_total, expected.total as expected_total
            from actual
            cross join expected
            where actual.total <> expected.total
        )

    select *
    from final

{% endtest %}
