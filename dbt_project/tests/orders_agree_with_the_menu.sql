-- By product, where the model goes by order: a join that multiplies rows in one shows
-- here.
with
    orders as (select * from {{ ref("orders") }}),

    order_items as (select * from {{ ref("stg_order_items") }}),

    products as (select * from {{ ref("stg_products") }}),

    supplies as (select * from {{ ref("stg_supplies") }}),

    items_per_product as (
        select product_id, count(*) as nr_items from order_items group by product_id
    ),

    expected_price as (
        select
            coalesce(
                sum(items_per_product.nr_items * products.product_price), 0
            ) as total
        from items_per_product
        inner join products on items_per_product.product_id = products.product_id
    ),

    expected_cost as (
        select
            coalesce(sum(items_per_product.nr_items * supplies.supply_cost), 0) as total
        from items_per_product
        inner join supplies on items_per_product.product_id = supplies.product_id
    ),

    actual as (
        select coalesce(sum(subtotal), 0) as price, coalesce(sum(order_cost), 0) as cost
        from orders
    ),

    final as (
        select
            actual.price as actual_price,
            expected_price.total as expected_price,
            actual.cost as actual_cost,
            expected_cost.total as expected_cost
        from actual
        cross join expected_price
        cross join expected_cost
        where actual.price <> expected_price.total or actual.cost <> expected_cost.total
    )

select *
from final
