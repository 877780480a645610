{% test no_long_gap(model, day, days) %}

    with
        days as (select distinct {{ day }} as day from {{ model }}),

        pairs as (select day, lead(day) over (order by day) as next_day from days),

        final as (
            select day as last_day_before, next_day as first_day_after
            from pairs
            where {{ dbt.datediff("day", "next_day", "day") }} > {{ days }}
        )

    select *
    from final

{% endtest %}
