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
        select * from all_orders where {{ in_months("ordered_at", "timestamp") }}
    ),

    order_items as (
        select *
        from {{ ref("stg_order_items") }}
        where {{ in_months("ordered_at", "timestamp") }}
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
            count(case when is_food_item then 1 end) as count_food_items,
            count(case when is_drink_item then 1 end) as count_drink_items,
            count(*) as count_items,
            cast(
                sum(
                    case when is_food_item then product_price else 0 end
                ) as {{ type_dollars() }}
            ) as subtotal_food_items,
            cast(
                sum(
                    case when is_drink_item then product_price else 0 end
                ) as {{ type_dollars() }}
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
            -- What is not known of an order's items is null; an order without items
            -- has 0.
            case
                when item_totals.order_id is null then 0 else item_totals.subtotal
            end as subtotal,
            case
                when item_totals.order_id is null then 0 else item_totals.order_cost
            end as order_cost,
            locations.location_name,
            first_orders.nr_of_customer = 1 as is_first_order,
            coalesce(item_totals.count_food_items, 0) > 0 as is_food_order,
            coalesce(item_totals.count_drink_items, 0) > 0 as is_drink_order
        from orders
        left join first_orders on orders.order_id = first_orders.order_id
        left join item_totals on orders.order_id = item_totals.order_id
        left join locations on orders.location_id = locations.location_id
    )

select *
from final
