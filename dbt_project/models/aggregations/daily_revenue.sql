with
    orders as (select * from {{ ref("orders") }}),

    final as (
        select
            cast({{ dbt.date_trunc("day", "ordered_at") }} as date) as ds,
            location_id,
            location_name,
            count(*) as nr_orders,
            cast(sum(order_total) as {{ dbt.type_numeric() }}) as revenue_usd
        from orders
        group by ds, location_id, location_name
    )

select *
from final
