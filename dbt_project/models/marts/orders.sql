{{
    config(
        cluster_by=["location_id", "customer_id"],
        **incremental_by_month("ordered_at", "timestamp")
    )
}}

with
    all_orders as (select * from {{ ref("stg_orders") }}),

    -- A customer's first order may lie in any month, so all of them are looked at.
    first_orders as (
        select
            order_id,
            row_number() over (
                partition by customer_id order by ordered_at, order_id
            ) as nr_of_customer
        from all_orders
    ),

    orders as (
        select *
        from all_orders
        {% if is_incremental() %}
            where {{ in_months("ordered_at", "timestamp") }}
        {% endif %}
    ),

    order_items as (
        select *
        from {{ ref("stg_order_items") }}
        {% if is_incremental() %}
            where {{ in_months("ordered_at", "timestamp") }}
        {% endif %}
    ),

    products as (select * from {{ ref("stg_products") }}),

    supplies as (select * from {{ ref("stg_supplies") }}),

    locations as (select * from {{ ref("stg_locations") }}),

    -- Summed before the join: an item stays one item, however many supplies go into it.
    product_costs as (
        select product_id, sum(supply_cost) as product_cost
        from supplies
        group by product_id
    ),

    priced_items as (
        select
            order_items.order_id,
            products.is_food_item,
            products.is_drink_item,
            products.product_price,
            product_costs.product_cost
        from order_items
        left join products on order_items.product_id = products.product_id
        left join product_costs on order_items.product_id = product_costs.product_id
    ),

    item_totals as (
        select
            order_id,
            cast(sum(is_food_item) as {{ dbt.type_bigint() }}) as count_food_items,
            cast(sum(is_drink_item) as {{ dbt.type_bigint() }}) as count_drink_items,
            count(*) as count_items,
            cast(
                sum(is_food_item * product_price) as {{ type_dollars() }}
            ) as subtotal_food_items,
            cast(
                sum(is_drink_item * product_price) as {{ type_dollars() }}
            ) as subtotal_drink_items,
            cast(sum(product_price) as {{ type_dollars() }}) as subtotal,
            cast(sum(product_cost) as {{ type_dollars() }}) as order_cost
        from priced_items
        group by order_id
    ),

    final as (
        select
            orders.order_id,
            orders.location_id,
            orders.customer_id,
            orders.order_total,
            orders.tax_paid,
            orders.ordered_at,
            coalesce(item_totals.count_food_items, 0) as count_food_items,
            coalesce(item_totals.count_drink_items, 0) as count_drink_items,
            coalesce(item_totals.count_items, 0) as count_items,
            coalesce(item_totals.subtotal_food_items, 0) as subtotal_food_items,
            coalesce(item_totals.subtotal_drink_items, 0) as subtotal_drink_items,
            coalesce(item_totals.subtotal, 0) as subtotal,
            coalesce(item_totals.order_cost, 0) as order_cost,
            locations.location_name,
            case
                when first_orders.nr_of_customer = 1 then 1 else 0
            end as is_first_order,
            case
                when item_totals.count_food_items > 0 then 1 else 0
            end as is_food_order,
            case
                when item_totals.count_drink_items > 0 then 1 else 0
            end as is_drink_order
        from orders
        left join first_orders on orders.order_id = first_orders.order_id
        left join item_totals on orders.order_id = item_totals.order_id
        left join locations on orders.location_id = locations.location_id
    )

select *
from final
