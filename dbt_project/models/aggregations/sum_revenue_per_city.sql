with
    orders as (select * from {{ ref("orders") }}),

    final as (
        select
            location_name,
            count(distinct customer_id) as nr_customers,
            count(*) as nr_orders,
            cast(sum(order_total) as {{ type_dollars() }}) as revenue_usd
        from orders
        group by location_name
    )

select *
from final
