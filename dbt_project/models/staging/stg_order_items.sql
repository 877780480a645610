with
    raw_items as (select * from {{ source("raw", "raw_items") }}),

    final as (
        select id as order_item_id, order_id, sku as product_id, ordered_at
        from raw_items
    )

select *
from final
