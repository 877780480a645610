with
    raw_orders as (select * from {{ source("raw", "raw_orders") }}),

    final as (
        select
            id as order_id,
            store_id as location_id,
            customer as customer_id,
            {{ cents_to_dollars("subtotal") }} as subtotal,
            {{ cents_to_dollars("order_total") }} as order_total,
            {{ cents_to_dollars("tax_paid") }} as tax_paid,
            ordered_at
        from raw_orders
    )

select *
from final
