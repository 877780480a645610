{{ config(cluster_by=["customer_id"]) }}

with
    customers as (select * from {{ ref("stg_customers") }}),

    orders as (select * from {{ ref("orders") }}),

    order_totals as (
        select
            customer_id,
            count(*) as count_lifetime_orders,
            min(ordered_at) as first_ordered_at,
            max(ordered_at) as last_ordered_at,
            sum(order_total - tax_paid) as lifetime_spend_pretax,
            sum(order_total) as lifetime_spend
        from orders
        group by customer_id
    ),

    final as (
        select
            customers.customer_id,
            customers.customer_name,
            order_totals.count_lifetime_orders,
            order_totals.first_ordered_at,
            order_totals.last_ordered_at,
            cast(
                order_totals.lifetime_spend_pretax as {{ type_dollars() }}
            ) as lifetime_spend_pretax,
            cast(order_totals.lifetime_spend as {{ type_dollars() }}) as lifetime_spend,
            case
                when order_totals.count_lifetime_orders > 1 then 'returning' else 'new'
            end as customer_type
        from customers
        inner join order_totals on customers.customer_id = order_totals.customer_id
    )

select *
from final
