with
    orders as (select * from {{ ref("orders") }}),

    order_items as (select * from {{ ref("stg_order_items") }}),

    -- An order with a day in the future is a mistake, and would end the window there.
    past_orders as (
        select
            order_id, location_id, order_total, cast(ordered_at as date) as ordered_on
        from orders
        where cast(ordered_at as date) <= current_date
    ),

    last_day as (select max(ordered_on) as ends_on from past_orders),

    recent_orders as (
        select order_id, location_id, order_total
        from past_orders
        cross join last_day
        where ordered_on > cast({{ dbt.dateadd("day", -90, "ends_on") }} as date)
    ),

    store_revenue as (
        select location_id, sum(order_total) as revenue_usd
        from recent_orders
        group by location_id
    ),

    store_items as (
        select recent_orders.location_id, order_items.product_id, count(*) as nr_items
        from recent_orders
        inner join order_items on recent_orders.order_id = order_items.order_id
        group by recent_orders.location_id, order_items.product_id
    ),

    final as (
        select
            store_items.location_id,
            store_items.product_id,
            store_items.nr_items,
            cast(store_revenue.revenue_usd as {{ type_dollars() }}) as revenue_usd
        from store_items
        inner join store_revenue on store_items.location_id = store_revenue.location_id
    )

select *
from final
