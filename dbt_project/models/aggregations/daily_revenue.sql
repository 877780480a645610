{{ config(**incremental_by_month("ds", "date")) }}

with
    orders as (select * from {{ ref("orders") }}),

    final as (
        select
            cast({{ dbt.date_trunc("day", "ordered_at") }} as date) as ds,
            location_id,
            location_name,
            count(*) as nr_orders,
            cast(sum(order_total) as {{ type_dollars() }}) as revenue_usd
        from orders
        where {{ in_months("ordered_at", "timestamp") }}
        group by ds, location_id, location_name
    )

select *
from final
