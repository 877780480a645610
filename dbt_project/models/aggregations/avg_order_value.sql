with
    customers as (select * from {{ ref("customers") }}),

    final as (
        select
            customer_name,
            count_lifetime_orders as lifetime_orders,
            lifetime_spend as lifetime_spend_usd,
            {{ average_dollars("lifetime_spend", "count_lifetime_orders") }}
            as avg_order_value_usd
        from customers
    )

select *
from final
